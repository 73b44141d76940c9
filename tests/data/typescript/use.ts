// Uses a service by the types that openapi-typescript has generated from its OpenAPI document.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

const [baseUrl = "", href = ""] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl });
const body: components["schemas"]["Inputs"] = { scene: { href }, threshold: 0.02 };

const health = await client.GET("/api/v1/health", { parseAs: "text" });
const call = await client.POST("/api/v1/process", { body });
const outputs = typeof call.data === "object" && "cloud" in call.data ? call.data : undefined;

const accepted = await client.POST("/api/v1/process", {
  body,
  params: { header: { Prefer: "respond-async" } },
});
const job = typeof accepted.data === "object" && "id" in accepted.data ? accepted.data : undefined;
const over = await client.GET("/api/v1/jobs/{job_id}", {
  params: { path: { job_id: job?.id ?? "" }, header: { Prefer: "wait=30" } },
});

// @ts-expect-error: the generated types know that a threshold is a number
const wrong: components["schemas"]["Inputs"] = { scene: { href }, threshold: "high" };
const refused = await client.POST("/api/v1/process", { body: wrong });

console.log(JSON.stringify({
  health: health.data,
  image: typeof outputs?.cloud,
  status: accepted.response.status,
  state: over.data?.state,
  pointers: refused.error?.errors?.map((each) => each.pointer),
}));
