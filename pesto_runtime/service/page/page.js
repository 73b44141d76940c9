"use strict";
const api = new URL("api/v1/", location.href);
const $ = (id) => document.getElementById(id);
const make = (tag, text, parent) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
};

async function showState() {
  let message = "unreachable";
  try { message = await (await fetch(new URL("health", api))).text(); } catch (error) { /* shown below */ }
  $("state").textContent = message;
  $("state").className = message === "OK" ? "ok" : "bad";
}

function gathered() {
  const form = new FormData();
  for (const field of document.querySelectorAll(".field")) {
    const { name, kind } = field.dataset;
    const control = $("in-" + name);
    if (kind === "image" || kind === "images") {
      for (const file of control.files) form.append(name, file);
      const href = field.querySelector(".href").value.trim();
      if (href) form.append(name, href);
    } else if (control.value !== "") {
      form.append(name, kind === "json" ? new Blob([control.value], { type: "application/json" }) : control.value);
    }
  }
  return form;
}

const ARRAYS = {
  u1: ["uint8", Uint8Array], i1: ["int8", Int8Array], u2: ["uint16", Uint16Array], i2: ["int16", Int16Array],
  u4: ["uint32", Uint32Array], i4: ["int32", Int32Array], u8: ["uint64", BigUint64Array], i8: ["int64", BigInt64Array],
  f4: ["float32", Float32Array], f8: ["float64", Float64Array],
};

function readNpy(buffer) {
  const view = new DataView(buffer);
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 : 10;
  const size = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const head = new TextDecoder().decode(new Uint8Array(buffer, start, size));
  const code = /'descr': '[<|=]([a-z]\d+)'/.exec(head);
  const shape = /'shape': \(([^)]*)\)/.exec(head)[1].split(",").filter((s) => s.trim()).map(Number);
  const [dtype, kind] = (code && ARRAYS[code[1]]) || [code ? code[1] : "of no dtype shown here", null];
  return { dtype, shape, values: kind ? new kind(buffer.slice(start + size)) : null };
}

function range(values, start, stop, nodata) {
  let least = Infinity, most = -Infinity;
  for (let i = start; i < stop; i++) {
    const value = Number(values[i]);
    if (value === nodata) continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

// Bands 1 to 3 as red, green, blue, or band 1 as grey, each from its least to its most value; nodata is see-through.
function paint(canvas, image, nodata) {
  const [bands, height, width] = image.shape;
  const step = Math.max(1, Math.ceil(Math.max(width, height) / 1024));
  canvas.width = Math.ceil(width / step);
  canvas.height = Math.ceil(height / step);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const size = width * height;
  const shown = bands >= 3 ? [0, 1, 2] : [0, 0, 0];
  const ranges = shown.map((band) => range(image.values, band * size, (band + 1) * size, nodata));
  shown.forEach((band, channel) => {
    const [least, most] = ranges[channel];
    const gain = most > least ? 255 / (most - least) : 0;
    for (let row = 0, at = 0; row < height; row += step) {
      for (let col = 0; col < width; col += step, at += 4) {
        const value = Number(image.values[band * size + row * width + col]);
        picture.data[at + channel] = gain ? (value - least) * gain : 127;
        if (value !== nodata && !Number.isNaN(value)) picture.data[at + 3] = 255;
      }
    }
  });
  context.putImageData(picture, 0, 0);
  return bands >= 3 ? ranges : ranges.slice(0, 1);
}

function showPixel(canvas, line, image) {
  const [bands, height, width] = image.shape;
  canvas.addEventListener("pointermove", (event) => {
    const col = Math.min(width - 1, Math.floor((event.offsetX / canvas.clientWidth) * width));
    const row = Math.min(height - 1, Math.floor((event.offsetY / canvas.clientHeight) * height));
    if (col < 0 || row < 0) return;
    const values = Array.from({ length: Math.min(bands, 8) }, (_, band) => image.values[band * width * height + row * width + col]);
    line.textContent = `row ${row}, column ${col}: ${values.join(", ")}${bands > 8 ? ", …" : ""}`;
  });
  canvas.addEventListener("pointerleave", () => { line.textContent = ""; });
}

function nodataOf(name) {
  const row = document.querySelector(`tr[data-port="${CSS.escape(name)}"]`);
  return row ? Number(row.dataset.nodata) : undefined;
}

async function showPart(name, value) {
  const figure = make("figure", undefined, $("answers"));
  const caption = make("figcaption", undefined, figure);
  make("b", name, caption);
  if (!(value instanceof Blob)) {
    make("pre", value, figure);
    return;
  }
  const image = readNpy(await value.arrayBuffer());
  const message = make("span", `${image.shape.join(" × ")} (band, row, column), ${image.dtype}`, caption);
  const link = make("a", "download .npy", (caption.append(" "), caption));
  link.href = URL.createObjectURL(value);
  link.download = name + ".npy";
  if (!image.values || image.shape.length !== 3) return;
  const canvas = make("canvas", undefined, figure);
  const ranges = paint(canvas, image, nodataOf(name));
  message.textContent += ", " + ranges.map(([least, most]) => (least > most ? "nothing valid" : `${least} to ${most}`)).join(" | ");
  showPixel(canvas, make("div", undefined, figure), image);
  canvas.nextSibling.className = "under";
}

function shortened(key, value) {
  return typeof value === "string" && value.length > 400 ? value.slice(0, 80) + `… (${value.length} characters)` : value;
}

function showProblem(problem) {
  make("p", problem.detail || problem.title, $("answers")).className = "bad";
  for (const each of problem.errors || []) {
    const name = each.pointer.split("/")[1];
    const field = document.querySelector(`.field[data-name="${CSS.escape(name || "")}"] .fault`);
    if (field) { field.textContent = each.detail; field.hidden = false; }
    else make("p", `${each.pointer}: ${each.detail}`, $("answers")).className = "fault";
  }
}

let running = null;

function setRunning(controller) {
  running = controller;
  $("run").disabled = Boolean(controller);
  $("stop").hidden = !controller;
}

async function call(event) {
  event.preventDefault();
  if (running) return;
  $("answers").replaceChildren();
  for (const fault of document.querySelectorAll(".field .fault")) fault.hidden = true;
  const accept = $("answer").value === "json" ? "application/json" : "multipart/form-data, application/x-npy;q=0.9";
  const began = performance.now();
  const spent = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
  const clock = setInterval(() => { $("spent").textContent = `running, ${spent()}`; }, 100);
  setRunning(new AbortController());
  let message = "";
  try {
    const asked = { method: "POST", body: gathered(), headers: { Accept: accept }, signal: running.signal };
    const answer = await fetch(new URL("process", api), asked);
    const type = answer.headers.get("Content-Type") || "";
    if (!answer.ok) showProblem(await answer.json());
    else if (type.startsWith("multipart/")) for (const [name, value] of await answer.formData()) await showPart(name, value);
    else make("pre", JSON.stringify(await answer.json(), shortened, 1), $("answers"));
    message = `HTTP ${answer.status}, ${spent()}`;
  } catch (error) {
    if (error.name === "AbortError") message = `stopped after ${spent()}`;
    else make("p", `no answer: ${error.message}`, $("answers")).className = "bad";
  }
  clearInterval(clock);
  setRunning(null);
  $("spent").textContent = message;
}

$("stop").addEventListener("click", () => running && running.abort());
$("command").textContent = $("command").textContent.replace("BASE", location.href.replace(/\/docs.*$/, ""));
$("call").addEventListener("submit", call);
showState();
setInterval(showState, 5000);
