// The viewer of a report: two pictures over each other, tiles, holes, and the values under the pointer.
// Positions are in pixels of the scene; `view` has the one in the middle, and CSS pixels per pixel.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("viewer-data").textContent);
const canvas = $("map");
const context = canvas.getContext("2d");
const [width, height] = data.size;
const view = { x: width / 2, y: height / 2, scale: 1 };
const pixels = new Map();
const touches = new Map();
let pointer = null;
let fitted = true;

const chosen = (id) => data.layers[$(id).value === "" ? -1 : Number($(id).value)];
const picture = (layer) => document.querySelector(`#${layer.id} img`);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
const number = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(4).replace(/\.?0+$/, ""));

// The pixels of a picture, on a canvas of their own that is never shown.
function pixelsOf(layer) {
  if (!pixels.has(layer.id)) {
    const image = picture(layer);
    const copy = document.createElement("canvas");
    copy.width = image.naturalWidth;
    copy.height = image.naturalHeight;
    const drawing = copy.getContext("2d", { willReadFrequently: true });
    drawing.drawImage(image, 0, 0);
    pixels.set(layer.id, drawing);
  }
  return pixels.get(layer.id);
}

function valueAt(layer, x, y) {
  const [col, row] = [Math.floor(x / layer.cell[0]), Math.floor(y / layer.cell[1])];
  const [red, green, blue, alpha] = pixelsOf(layer).getImageData(col, row, 1, 1).data;
  if (!alpha) return "no data";
  const stretched = (share, [low, high]) =>
    (share <= 0 ? "≤ " : share >= 1 ? "≥ " : "≈ ") + number(low + share * (high - low));
  if (layer.kind === "colour") {
    return [red, green, blue].map((level, n) => `${layer.bands[n]} ${stretched(level / 255, layer.limits[n])}`).join(", ");
  }
  const colour = "#" + [red, green, blue].map((level) => level.toString(16).padStart(2, "0")).join("");
  const entry = layer.colours.indexOf(colour);
  if (entry < 0) return "?";
  return layer.kind === "classes" ? layer.labels[entry] : stretched(entry / (layer.colours.length - 1), layer.limits[0]);
}

const inside = ([left, top, wide, tall], x, y) => x >= left && y >= top && x < left + wide && y < top + tall;
const shownTiles = () => ($("show-tiles") && $("show-tiles").value !== "" ? data.tiles[$("show-tiles").value] : []);
const shownHoles = () => ($("show-holes") && $("show-holes").checked ? data.holes : []);

function readingAt(x, y) {
  if (x < 0 || y < 0 || x >= width || y >= height) return "";
  const parts = [`column ${Math.floor(x)}, row ${Math.floor(y)}`];
  if (data.transform) {
    const [a, b, c, d, e, f] = data.transform;
    parts.push(`x ${(a * x + b * y + c).toFixed(data.digits)}, y ${(d * x + e * y + f).toFixed(data.digits)} ${data.code}`);
  }
  for (const layer of new Set([chosen("below"), chosen("above")])) {
    if (layer) parts.push(`${layer.name}: ${valueAt(layer, x, y)}${layer.step > 1 ? ` (1 of ${layer.step} × ${layer.step} px)` : ""}`);
  }
  const tile = shownTiles().find((each) => inside(each, x, y));
  if (tile) parts.push(`tile ${tile[5]}`);
  const hole = shownHoles().find((each) => inside(each, x, y));
  if (hole) parts.push(`hole: ${hole[4]}`);
  return parts.join(" · ");
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const [wide, tall] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(tall * ratio)) {
    [canvas.width, canvas.height] = [Math.round(wide * ratio), Math.round(tall * ratio)];
  }
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const scale = view.scale * ratio;
  const toMap = () => context.setTransform(scale, 0, 0, scale, (wide / 2 - view.x * view.scale) * ratio, (tall / 2 - view.y * view.scale) * ratio);
  context.save();
  toMap();
  context.beginPath();
  context.rect(0, 0, width, height);
  context.clip();
  if (chosen("below")) drawLayer(chosen("below"));
  const above = chosen("above");
  const swipe = Number($("swipe").value) / 100;
  if (above) {
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.beginPath();
    context.rect(swipe * canvas.width, 0, canvas.width, canvas.height);
    context.clip();
    toMap();
    context.globalAlpha = Number($("opacity").value) / 100;
    drawLayer(above);
    context.restore();
  }
  for (const [left, top, across, down, kind] of shownTiles()) {
    context.globalAlpha = 0.6;
    context.fillStyle = kind === "hole" ? "#d32f2f" : kind === "reused" ? style("--quiet") : style("--" + kind);
    context.fillRect(left, top, across, down);
    outline(left, top, across, down, style("--paper"), 0.75);
  }
  context.globalAlpha = 1;
  for (const [left, top, across, down] of shownHoles()) outline(left, top, across, down, "#ff3d2e", 3);
  context.restore();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (above && swipe > 0 && swipe < 1) line([[swipe * wide, 0], [swipe * wide, tall]]);
  if (!pointer && document.activeElement === canvas) {
    line([[wide / 2 - 9, tall / 2], [wide / 2 + 9, tall / 2]]);
    line([[wide / 2, tall / 2 - 9], [wide / 2, tall / 2 + 9]]);
  }
  drawScaleBar(tall);
  if (Math.abs(data.north) >= 5) drawNorth(wide);
  const [x, y] = pointer ? toScene(...pointer) : [view.x, view.y];
  $("reading").textContent = pointer || document.activeElement === canvas ? readingAt(x, y) : "\u00a0";
}

function drawLayer(layer) {
  const image = picture(layer);
  context.imageSmoothingEnabled = view.scale * layer.cell[0] < 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, image.naturalWidth * layer.cell[0], image.naturalHeight * layer.cell[1]);
}

function outline(left, top, across, down, colour, thickness) {
  context.strokeStyle = colour;
  context.lineWidth = thickness / view.scale;
  context.strokeRect(left, top, across, down);
}

// A white line with a dark rim: seen on every ground.
function line(points, thickness = 2) {
  for (const [colour, wider] of [["#000a", 2], ["#fff", 0]]) {
    context.strokeStyle = colour;
    context.lineWidth = thickness + wider;
    context.beginPath();
    points.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  }
}

function label(words, x, y) {
  context.font = "600 12px system-ui, sans-serif";
  context.lineWidth = 3;
  context.strokeStyle = "#000c";
  context.strokeText(words, x, y);
  context.fillStyle = "#fff";
  context.fillText(words, x, y);
}

function drawScaleBar(tall) {
  const unit = data.metres || 1;
  const most = (110 / view.scale) * unit;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = Math.max(...[1, 2, 5].map((step) => step * power).filter((each) => each <= most));
  const words = !data.metres ? `${length} px` : length >= 1000 ? `${length / 1000} km` : `${number(length)} m`;
  const long = (length / unit) * view.scale;
  line([[12, tall - 20], [12, tall - 14], [12 + long, tall - 14], [12 + long, tall - 20]]);
  label(words, 12, tall - 26);
}

function drawNorth(wide) {
  context.save();
  context.translate(wide - 26, 30);
  context.rotate((data.north * Math.PI) / 180);
  line([[0, 16], [0, -14], [-6, -4], [0, -14], [6, -4]]);
  context.restore();
  label("N", wide - 30, 62);
}

const toScene = (x, y) => [view.x + (x - canvas.clientWidth / 2) / view.scale, view.y + (y - canvas.clientHeight / 2) / view.scale];
const fitScale = () => Math.min(canvas.clientWidth / width, canvas.clientHeight / height);

let waiting = 0;
function redraw() {
  if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); });
}

function fit() {
  fitted = true;
  Object.assign(view, { x: width / 2, y: height / 2, scale: fitScale() });
  redraw();
}

// Zoom about a point of the canvas, which stays where it is.
function zoom(scale, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const [col, row] = toScene(x, y);
  view.scale = clamp(scale, fitScale() / 2, 32);
  const [newCol, newRow] = toScene(x, y);
  pan(col - newCol, row - newRow);
}

function pan(cols, rows) {
  fitted = false;
  view.x = clamp(view.x + cols, 0, width);
  view.y = clamp(view.y + rows, 0, height);
  redraw();
}

function show([left, top, across, down]) {
  Object.assign(view, { x: left + across / 2, y: top + down / 2 });
  fitted = false;
  pointer = null;
  view.scale = clamp(fitScale() * Math.min(width / across, height / down) * 0.4, fitScale(), 32);
  canvas.focus();
  redraw();
}

const KEYS = {
  ArrowLeft: () => pan(-40 / view.scale, 0), ArrowRight: () => pan(40 / view.scale, 0),
  ArrowUp: () => pan(0, -40 / view.scale), ArrowDown: () => pan(0, 40 / view.scale),
  "+": () => zoom(view.scale * 1.5), "=": () => zoom(view.scale * 1.5), "-": () => zoom(view.scale / 1.5), 0: fit, 1: () => zoom(1),
};

canvas.addEventListener("keydown", (event) => {
  if (!KEYS[event.key] || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  pointer = null;
  KEYS[event.key]();
});
canvas.addEventListener("wheel", (event) => {
  if (document.activeElement !== canvas && !event.ctrlKey) return;
  event.preventDefault();
  zoom(view.scale * Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  touches.set(event.pointerId, [event.offsetX, event.offsetY]);
  pointer = [event.offsetX, event.offsetY];
  redraw();
});
canvas.addEventListener("pointermove", (event) => {
  const before = touches.get(event.pointerId);
  const at = [event.offsetX, event.offsetY];
  pointer = at;
  if (!before) return redraw();
  const other = [...touches].find(([id]) => id !== event.pointerId);
  touches.set(event.pointerId, at);
  if (other) {
    const apart = ([x, y]) => Math.hypot(x - other[1][0], y - other[1][1]) || 1;
    zoom((view.scale * apart(at)) / apart(before), (at[0] + other[1][0]) / 2, (at[1] + other[1][1]) / 2);
    return undefined;
  }
  return pan((before[0] - at[0]) / view.scale, (before[1] - at[1]) / view.scale);
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => touches.delete(event.pointerId));
canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") { pointer = null; redraw(); } });
canvas.addEventListener("dblclick", (event) => zoom(view.scale * 2, event.offsetX, event.offsetY));
for (const name of ["focus", "blur"]) canvas.addEventListener(name, redraw);
for (const control of document.querySelectorAll(".tools input, .tools select")) control.addEventListener("input", redraw);
$("zoom-in").addEventListener("click", () => zoom(view.scale * 1.5));
$("zoom-out").addEventListener("click", () => zoom(view.scale / 1.5));
$("zoom-fit").addEventListener("click", fit);
$("zoom-one").addEventListener("click", () => zoom(1));
for (const link of document.querySelectorAll("a[data-window]")) {
  link.addEventListener("click", () => show(link.dataset.window.split(",").map(Number)));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
$("viewer").hidden = false;
canvas.style.aspectRatio = clamp(width / height, 0.8, 2.2);
await Promise.all(data.layers.map((layer) => picture(layer).decode().catch(() => null)));
fit();
new ResizeObserver(() => (fitted ? fit() : redraw())).observe(canvas);
$("viewer").dataset.ready = "yes";
