"use strict";
// Reads a GeoTIFF in the browser, to show it: tiles or strips, not compressed or deflate. Of a large file, an overview.
const MOST_SIDE = 2048;
const MOST_BYTES = 64 << 20;
const SIZES = { 1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8 };
const SAMPLES = {
  "1,8": ["uint8", Uint8Array], "2,8": ["int8", Int8Array], "1,16": ["uint16", Uint16Array], "2,16": ["int16", Int16Array],
  "1,32": ["uint32", Uint32Array], "2,32": ["int32", Int32Array], "3,32": ["float32", Float32Array], "3,64": ["float64", Float64Array],
};
const TAGS = {
  254: "reduced", 256: "width", 257: "height", 258: "bits", 259: "compression", 262: "photometric", 273: "offsets", 277: "bands", 278: "rows",
  279: "counts", 284: "planar", 317: "predictor", 322: "tileWidth", 323: "tileHeight", 324: "offsets", 325: "counts", 339: "format", 42112: "metadata", 42113: "nodata",
};

async function viewOf(blob, start, length) {
  return new DataView(await blob.slice(start, start + length).arrayBuffer());
}

function numberAt(view, at, type, little) {
  switch (SIZES[type]) {
    case 1: return view.getUint8(at);
    case 2: return view.getUint16(at, little);
    case 4: return type === 11 ? view.getFloat32(at, little) : view.getUint32(at, little);
    default: return type === 12 ? view.getFloat64(at, little) : Number(view.getBigUint64(at, little));
  }
}

async function directories(blob) {
  const head = await viewOf(blob, 0, 16);
  const little = head.getUint16(0) === 0x4949;
  const big = head.getUint16(2, little) === 43;
  if (![0x4949, 0x4d4d].includes(head.getUint16(0)) || ![42, 43].includes(head.getUint16(2, little))) throw new Error("not a GeoTIFF");
  const found = [];
  let next = big ? Number(head.getBigUint64(8, little)) : head.getUint32(4, little);
  while (next && found.length < 32) {
    const count = big ? Number((await viewOf(blob, next, 8)).getBigUint64(0, little)) : (await viewOf(blob, next, 2)).getUint16(0, little);
    const [lead, long, field] = big ? [8, 20, 8] : [2, 12, 4];
    const view = await viewOf(blob, next + lead, count * long + field);
    const directory = { little, compression: [1], bands: [1], planar: [1], predictor: [1], format: [1], reduced: [0] };
    for (let at = 0; at < count * long; at += long) {
      const name = TAGS[view.getUint16(at, little)];
      const type = view.getUint16(at + 2, little);
      if (!name || !SIZES[type]) continue;
      const many = big ? Number(view.getBigUint64(at + 4, little)) : view.getUint32(at + 4, little);
      const place = at + (big ? 12 : 8);
      const bytes = many * SIZES[type];
      const outside = bytes > field;
      const from = big ? Number(view.getBigUint64(place, little)) : view.getUint32(place, little);
      const values = outside ? await viewOf(blob, from, bytes) : view;
      directory[name] = Array.from({ length: many }, (_, n) => numberAt(values, (outside ? 0 : place) + n * SIZES[type], type, little));
    }
    found.push(directory);
    next = big ? Number(view.getBigUint64(count * long, little)) : view.getUint32(count * long, little);
  }
  return found;
}

async function inflated(data) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Undo the predictor of rows of `width` pixels of `bands` values, in place or as a new array.
function unpredicted(bytes, kind, predictor, { width, bands, little }) {
  const size = kind.BYTES_PER_ELEMENT;
  if (!little && size > 1 && predictor !== 3) for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
  if (predictor === 3) {
    const row = width * bands;
    const out = new Uint8Array(bytes.length);
    for (let start = 0; start < bytes.length; start += row * size) {
      for (let n = start + bands; n < start + row * size; n++) bytes[n] += bytes[n - bands];
      for (let n = 0; n < row; n++) for (let b = 0; b < size; b++) out[start + n * size + size - 1 - b] = bytes[start + b * row + n];
    }
    return new kind(out.buffer);
  }
  const values = new kind(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / size));
  if (predictor === 2) {
    for (let start = 0; start < values.length; start += width * bands) {
      for (let n = start + bands; n < start + width * bands; n++) values[n] += values[n - bands];
    }
  }
  return values;
}

// Returns {dtype, names: {band: index}, shape: [bands, rows, columns], values band by band, nodata, step: pixels of the raster per pixel}.
async function readTiff(blob) {
  const all = await directories(blob);
  const bytesOf = (each) => each.width[0] * each.height[0] * each.bands[0] * (each.bits[0] / 8);
  const fits = (each) => Math.max(each.width[0], each.height[0]) <= MOST_SIDE || bytesOf(each) <= MOST_BYTES;
  const isPicture = (each, n) => n === 0 || (each.reduced[0] & 1 && !(each.reduced[0] & 4) && each.bands[0] === all[0].bands[0]);
  const directory = all.filter(isPicture).find(fits);
  if (!directory) throw new Error(`${all[0].width[0]} × ${all[0].height[0]} pixels without overviews are too large to be shown here`);
  const [width, height, bands] = [directory.width[0], directory.height[0], directory.bands[0]];
  const [dtype, kind] = SAMPLES[`${directory.format[0]},${directory.bits[0]}`] || [`${directory.bits[0]} bits`, null];
  const words = (codes) => new TextDecoder().decode(Uint8Array.from(codes || [])).replace(/\0.*$/s, "").trim();
  const text = words(directory.nodata);
  const named = [...words(all[0].metadata).matchAll(/<Item name="DESCRIPTION" sample="(\d+)"[^>]*>([^<]*)</g)];
  const names = Object.fromEntries(named.map(([, band, name]) => [name.toLowerCase(), Number(band)]));
  const image = { dtype, names, shape: [bands, height, width], values: null, nodata: text ? Number(text) : undefined, step: Math.round(all[0].width[0] / width) };
  const compression = directory.compression[0];
  if (!kind || ![1, 8, 32946].includes(compression)) return { ...image, reason: kind ? `compression ${compression}` : dtype };
  image.values = new kind(width * height * bands);
  const tiled = Boolean(directory.tileWidth);
  const wide = tiled ? directory.tileWidth[0] : width;
  const tall = tiled ? directory.tileHeight[0] : Math.min(height, (directory.rows || [height])[0]);
  const [across, down] = [Math.ceil(width / wide), Math.ceil(height / tall)];
  const together = directory.planar[0] === 1 ? bands : 1;
  for (let n = 0; n < directory.offsets.length; n++) {
    if (!directory.counts[n]) continue;
    const plane = Math.floor(n / (across * down));
    const [row, col] = [Math.floor((n % (across * down)) / across) * tall, (n % across) * wide];
    const raw = new Uint8Array(await blob.slice(directory.offsets[n], directory.offsets[n] + directory.counts[n]).arrayBuffer());
    const block = unpredicted(compression === 1 ? raw : await inflated(raw), kind, directory.predictor[0], { width: wide, bands: together, little: directory.little });
    for (let y = 0; y < Math.min(tall, height - row); y++) {
      for (let x = 0; x < Math.min(wide, width - col); x++) {
        for (let b = 0; b < together; b++) {
          image.values[((plane + b) * height + row + y) * width + col + x] = block[(y * wide + x) * together + b];
        }
      }
    }
  }
  return image;
}
