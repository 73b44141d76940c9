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
  let told = "unreachable";
  try { told = await (await fetch(new URL("health", api))).text(); } catch (error) { /* said below */ }
  $("state").textContent = told;
  $("state").className = told === "OK" ? "ok" : "bad";
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
  u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array,
  u8: BigUint64Array, i8: BigInt64Array, f4: Float32Array, f8: Float64Array,
};

function readNpy(buffer) {
  const view = new DataView(buffer);
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 : 10;
  const size = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const head = new TextDecoder().decode(new Uint8Array(buffer, start, size));
  const code = /'descr': '[<|=]([a-z]\d+)'/.exec(head);
  const shape = /'shape': \(([^)]*)\)/.exec(head)[1].split(",").filter((s) => s.trim()).map(Number);
  const kind = code && ARRAYS[code[1]];
  return { dtype: code ? code[1] : "?", shape, values: kind ? new kind(buffer.slice(start + size)) : null };
}

function range(values, start, stop) {
  let least = Infinity, most = -Infinity;
  for (let i = start; i < stop; i++) {
    const value = Number(values[i]);
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

function paint(canvas, image) {
  const [bands, height, width] = image.shape;
  const step = Math.max(1, Math.ceil(Math.max(width, height) / 1024));
  canvas.width = Math.ceil(width / step);
  canvas.height = Math.ceil(height / step);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const size = width * height;
  const shown = bands >= 3 ? [0, 1, 2] : [0, 0, 0];
  shown.forEach((band, channel) => {
    const [least, most] = range(image.values, band * size, (band + 1) * size);
    const gain = most > least ? 255 / (most - least) : 0;
    for (let row = 0, at = 0; row < height; row += step) {
      for (let col = 0; col < width; col += step, at += 4) {
        picture.data[at + channel] = (Number(image.values[band * size + row * width + col]) - least) * gain;
        picture.data[at + 3] = 255;
      }
    }
  });
  context.putImageData(picture, 0, 0);
}

async function showPart(name, value) {
  const figure = make("figure", undefined, $("answers"));
  if (!(value instanceof Blob)) {
    make("figcaption", name, figure);
    make("pre", value, figure);
    return;
  }
  const image = readNpy(await value.arrayBuffer());
  const caption = make("figcaption", `${name}: ${image.shape.join(" × ")} (band, row, col), ${image.dtype} `, figure);
  const link = make("a", "download .npy", caption);
  link.href = URL.createObjectURL(value);
  link.download = name + ".npy";
  if (image.values) paint(make("canvas", undefined, figure), image);
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

async function call(event) {
  event.preventDefault();
  $("answers").replaceChildren();
  for (const fault of document.querySelectorAll(".field .fault")) fault.hidden = true;
  const accept = $("answer").value === "json" ? "application/json" : "multipart/form-data, application/x-npy;q=0.9";
  const began = performance.now();
  $("spent").textContent = "running…";
  try {
    const answer = await fetch(new URL("process", api), { method: "POST", body: gathered(), headers: { Accept: accept } });
    const type = answer.headers.get("Content-Type") || "";
    if (!answer.ok) showProblem(await answer.json());
    else if (type.startsWith("multipart/")) for (const [name, value] of await answer.formData()) await showPart(name, value);
    else make("pre", JSON.stringify(await answer.json(), shortened, 1), $("answers"));
    $("spent").textContent = `HTTP ${answer.status}, ${Math.round(performance.now() - began)} ms`;
  } catch (error) {
    $("spent").textContent = "";
    make("p", `no answer: ${error.message}`, $("answers")).className = "bad";
  }
}

$("command").textContent = $("command").textContent.replace("BASE", location.href.replace(/\/docs.*$/, ""));
$("call").addEventListener("submit", call);
showState();
setInterval(showState, 5000);
