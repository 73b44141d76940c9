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

// A picture of another format than GeoTIFF, as the browser reads it: red, green and blue.
async function readPicture(blob) {
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const size = bitmap.width * bitmap.height;
  const values = new Uint8Array(3 * size);
  for (let n = 0; n < size; n++) for (let band = 0; band < 3; band++) values[band * size + n] = data[4 * n + band];
  return { dtype: "uint8", shape: [3, bitmap.height, bitmap.width], values, step: 1 };
}

function range(values, start, stop, nodata) {
  let least = Infinity, most = -Infinity;
  for (let i = start; i < stop; i++) {
    const value = values[i];
    if (value === nodata) continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

// Bands named red, green and blue, or 1 to 3, in colour, or band 1 as grey, each from its least to its most value; classes in their colours; nodata is see-through.
function paint(canvas, image, nodata, classes = []) {
  const [bands, height, width] = image.shape;
  const step = Math.max(1, Math.ceil(Math.max(width, height) / 1024));
  canvas.width = Math.ceil(width / step);
  canvas.height = Math.ceil(height / step);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  const size = width * height;
  const named = ["red", "green", "blue"].map((name) => (image.names || {})[name]);
  const shown = !named.includes(undefined) ? named : bands >= 3 ? [0, 1, 2] : [0, 0, 0];
  const colours = new Map(bands === 1 ? classes.filter((each) => each.color_hint).map((each) => [each.value, each.color_hint]) : []);
  const ranges = shown.map((band) => range(image.values, band * size, (band + 1) * size, nodata));
  shown.forEach((band, channel) => {
    const [least, most] = ranges[channel];
    const gain = most > least ? 255 / (most - least) : 0;
    for (let row = 0, at = 0; row < height; row += step) {
      for (let col = 0; col < width; col += step, at += 4) {
        const value = image.values[band * size + row * width + col];
        const hint = colours.get(value);
        picture.data[at + channel] = hint ? parseInt(hint.slice(2 * channel, 2 * channel + 2), 16) : gain ? (value - least) * gain : 127;
        if (value !== nodata && !Number.isNaN(value)) picture.data[at + 3] = 255;
      }
    }
  });
  context.putImageData(picture, 0, 0);
  return bands >= 3 ? ranges : ranges.slice(0, 1);
}

function showPixel(canvas, line, image, classes = []) {
  const [bands, height, width] = image.shape;
  const names = new Map(classes.map((each) => [each.value, ` ${each.name}`]));
  canvas.addEventListener("pointermove", (event) => {
    const col = Math.min(width - 1, Math.floor((event.offsetX / canvas.clientWidth) * width));
    const row = Math.min(height - 1, Math.floor((event.offsetY / canvas.clientHeight) * height));
    if (col < 0 || row < 0) return;
    const values = Array.from({ length: Math.min(bands, 8) }, (_, band) => image.values[band * width * height + row * width + col]);
    line.textContent = `row ${row * image.step}, column ${col * image.step}: ${values.map((each) => each + (names.get(each) || "")).join(", ")}${bands > 8 ? ", …" : ""}`;
  });
  canvas.addEventListener("pointerleave", () => { line.textContent = ""; });
}

function factsOf(name) {
  const { nodata, classes } = document.querySelector(`tr[data-port="${CSS.escape(name)}"]`)?.dataset || {};
  return { nodata: nodata === undefined ? undefined : Number(nodata), classes: classes ? JSON.parse(classes) : [] };
}

const short = (value) => (Number.isInteger(value) ? value : Number(value.toPrecision(6)));

// The picture of an image with its values under the pointer, below its caption.
function showImage(figure, message, image, { nodata, classes }) {
  message.textContent = `${image.shape.join(" × ")} (band, row, column), ${image.dtype}`;
  if (image.step > 1) message.textContent += `, an overview of 1 : ${image.step}`;
  if (!image.values) {
    message.textContent += `; ${image.reason} is not shown here`;
    return;
  }
  const canvas = make("canvas", undefined, figure);
  canvas.setAttribute("role", "img");
  const ranges = paint(canvas, image, nodata, classes);
  message.textContent += ", " + ranges.map(([least, most]) => (least > most ? "nothing valid" : `${short(least)} to ${short(most)}`)).join(" | ");
  canvas.setAttribute("aria-label", message.textContent);
  if (classes.length) showClasses(figure, classes);
  const line = make("div", undefined, figure);
  line.className = "under";
  showPixel(canvas, line, image, classes);
}

function showClasses(figure, classes) {
  const list = make("ul", undefined, figure);
  list.className = "classes";
  for (const each of classes) {
    const item = make("li", undefined, list);
    if (each.color_hint) make("i", "", item).style.background = `#${each.color_hint}`;
    make("span", `${each.value} ${each.name}`, item);
    if (each.description) item.title = each.description;
  }
}

// An image that was chosen for an input, before it is sent.
async function showInput(field) {
  field.querySelector("figure")?.remove();
  const [file] = $("in-" + field.dataset.name).files;
  if (!file) return;
  const figure = make("figure", undefined, field.lastElementChild);
  const message = make("figcaption", "…", figure);
  try {
    const isPicture = /^image\/(png|jpeg)$/.test(file.type);
    const image = await (isPicture ? readPicture(file) : readTiff(file));
    showImage(figure, message, image, { nodata: image.nodata, classes: [] });
  } catch (error) {
    message.textContent = `no preview: ${error.message}`;
  }
}

async function showPart(name, value) {
  const figure = make("figure", undefined, $("answers"));
  const caption = make("figcaption", undefined, figure);
  make("b", name, caption);
  if (!(value instanceof Blob)) {
    make("pre", value, figure);
    return;
  }
  const message = make("span", "", caption);
  const link = make("a", "download GeoTIFF", (caption.append(" "), caption));
  link.href = URL.createObjectURL(new Blob([value], { type: "image/tiff" }));
  link.download = name + ".tif";
  const image = await readTiff(value);
  const facts = factsOf(name);
  showImage(figure, message, image, { ...facts, nodata: facts.nodata ?? image.nodata });
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
  const accept = $("answer").value === "json" ? "application/json" : "multipart/form-data, image/tiff;q=0.9";
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

for (const field of document.querySelectorAll(".field[data-kind=image], .field[data-kind=images]")) {
  const [file, href] = [$("in-" + field.dataset.name), field.querySelector(".href")];
  const isRequired = file.required;
  file.addEventListener("change", () => showInput(field));
  href.addEventListener("input", () => { file.required = isRequired && !href.value.trim(); });
}
$("stop").addEventListener("click", () => running && running.abort());
$("command").textContent = $("command").textContent.replace("BASE", location.href.replace(/\/docs.*$/, ""));
$("call").addEventListener("submit", call);
showState();
setInterval(showState, 5000);
