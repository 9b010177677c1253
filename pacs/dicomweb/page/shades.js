// Stored values to what the screen shows: the grayscale and colour pipelines (PS3.4 N.2, PS3.3 C.11), as the server's
// own pictures have them (pacs/rendering). Palettes are left to the server: see `needsServer`.

import { number, numeric, plain, text, values } from "./dicom.js";
import { isRemote, lookUp, modalityTable, voiTable } from "./tables.js";

export const FUNCTIONS = ["LINEAR", "LINEAR_EXACT", "SIGMOID"];
const OPAQUE = 0xff000000;

/** Whether there is something in the way to the screen that is not done here. */
export const needsServer = (attributes) => isRemote(attributes) || text(attributes, "00280004") === "PALETTE COLOR";

const possible = ({ center, width, shape }) => FUNCTIONS.includes(shape) && (shape === "LINEAR" ? width >= 1 : width > 0)
  && Number.isFinite(center + width);

/** Stored values to those that windows are given in. PS3.3 C.11.1 */
function modality(attributes) {
  const table = modalityTable(attributes);
  if (table) return (value) => lookUp(table, value);
  const slope = number(attributes, "00281053") ?? 1, intercept = number(attributes, "00281052") ?? 0;
  return (value) => value * slope + intercept;
}

/** The windows that the header names and that make sense: { center, width, shape, name }[]. PS3.3 C.11.2 */
function windowsOf(attributes) {
  const [centers, widths] = ["00281050", "00281051"].map((tag) => values(attributes, tag).map(numeric));
  const shape = String(values(attributes, "00281056")[0] ?? "LINEAR").trim().toUpperCase();
  const names = values(attributes, "00281055");
  return centers.map((center, at) => ({ center, width: widths[at], shape, name: plain(names[at] ?? "").trim() || `Window ${at + 1}` }))
    .filter(possible);
}

/** The first of them; null where the first one named makes no sense. */
function headerWindow(attributes) {
  const [found] = windowsOf(attributes);
  return found && found.center === number(attributes, "00281050") && found.width === number(attributes, "00281051") ? found : null;
}

/** Those of the header in which a frame is not shown by default. */
export const headerWindows = (attributes) => windowsOf(attributes).slice(headerWindow(attributes) && !voiTable(attributes) ? 1 : 0);

/** The least value black, the greatest white, Pixel Padding left out. PS3.3 C.7.5.1.1.2 */
export function fullWindow(samples, attributes) {
  const padding = number(attributes, "00280120");
  const limit = number(attributes, "00280121") ?? padding;
  const [from, to] = padding === null ? [1, 0] : [Math.min(padding, limit), Math.max(padding, limit)];
  let least = Infinity, most = -Infinity;
  for (const value of samples.planes[0]) {
    if (value >= from && value <= to) continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  if (least > most) least = most = 0;
  const ends = [least, most].map(modality(attributes));
  const low = Math.min(...ends), high = Math.max(...ends);
  const width = high > low ? high - low : 1;
  return { center: low + width / 2, width, shape: "LINEAR_EXACT" };
}

/** How samples are shown unless the reader chooses a window: by the header's { table }, in its window, or all there is. */
export function defaultWindow(samples, attributes) {
  const table = voiTable(attributes);
  return table ? { table } : headerWindow(attributes) ?? fullWindow(samples, attributes);
}

/** Where a reader begins to change the window of a frame of which no samples are here: at that `named`, or at all values. */
export function guessedWindow(attributes, shape, named = true) {
  const found = named && headerWindow(attributes);
  if (found) return found;
  const least = shape.pixelRepresentation ? -(2 ** (shape.bitsStored - 1)) : 0;
  const [low, high] = [least, least + 2 ** shape.bitsStored].map(modality(attributes)).sort((a, b) => a - b);
  return { center: (low + high) / 2, width: Math.max(1, high - low), shape: "LINEAR" };
}

/** The gray level, 0 to 255, of a value. PS3.3 C.11.2.1.2.1, C.11.2.1.3 */
function level(value, { center, width, shape, table }) {
  if (table) return lookUp(table, value) * (255 / (2 ** table.bits - 1));
  if (shape === "SIGMOID") return 255 / (1 + Math.exp((-4 * (value - center)) / width));
  const [middle, span] = shape === "LINEAR" ? [center - 0.5, width - 1] : [center, width];
  if (span === 0) return value > middle ? 255 : 0;
  return ((value - middle) / span + 0.5) * 255;
}

/** `samples` in a window as pixels of a canvas. */
export function shaded(samples, attributes, window, image) {
  const pixels = new Uint32Array(image.data.buffer);
  if (samples.planes.length === 3) return coloured(samples, text(attributes, "00280004").trim(), pixels);
  const value = modality(attributes);
  const inverted = text(attributes, "00280004").trim() === "MONOCHROME1";
  const { low, high, planes: [values] } = samples;
  const table = new Uint32Array(high - low + 1);
  for (let stored = low; stored <= high; stored++) {
    const gray = Math.min(255, Math.max(0, Math.round(level(value(stored), window))));
    table[stored - low] = OPAQUE | ((inverted ? 255 - gray : gray) * 0x010101);
  }
  for (let at = 0; at < pixels.length; at++) pixels[at] = table[values[at] - low];
}

/** RGB, or YBR_FULL by the inverse of the equations of PS3.3 C.7.6.3.1.2. The decoder has undone YBR_RCT and YBR_ICT. */
function coloured({ planes: [first, second, third] }, photometric, pixels) {
  const clamped = (value) => Math.min(255, Math.max(0, Math.round(value)));
  if (photometric !== "YBR_FULL") {
    for (let at = 0; at < pixels.length; at++) pixels[at] = OPAQUE | (third[at] << 16) | (second[at] << 8) | first[at];
    return;
  }
  for (let at = 0; at < pixels.length; at++) {
    const y = first[at], blue = second[at] - 128, red = third[at] - 128;
    pixels[at] = OPAQUE | (clamped(y + 1.772 * blue) << 16) | (clamped(y - 0.344136 * blue - 0.714136 * red) << 8) | clamped(y + 1.402 * red);
  }
}
