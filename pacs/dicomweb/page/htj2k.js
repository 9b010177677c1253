// HTJ2K codestreams to samples: ISO/IEC 15444-15 (T.814), as far as DICOM's .201, .202 and .203 need it.
//
// Resolution levels are prefixes in what the archive stores, so a codestream may end early: what is wholly there is
// decoded. Refused by name: Part 1 code-blocks, sub-sampled components, regions of interest, packed packet headers,
// changes of progression.

import { CodestreamError } from "./htj2k_headers.js";
import { decodeBlock } from "./htj2k_blocks.js";
import { walk } from "./htj2k_packets.js";
import { height, reduced, width } from "./htj2k_tiles.js";
import { irreversible, reversible } from "./wavelet.js";

export { CodestreamError };

// The samples of resolution level `level` (0 the coarsest; the highest that is wholly there if undefined) of a
// codestream or a prefix of one, clamped to its precision. CodestreamError for what is damaged, cut before the end of
// that level, not supported, or of more than `maxSamples` samples.
export function decode(bytes, { level, maxSamples = 2 ** 26 } = {}) {
  if (level !== undefined && !(Number.isInteger(level) && level >= 0)) throw new CodestreamError(`level ${level}`);
  const found = walk(bytes, level);
  const { image } = found;
  const area = reduced(image.area, found.finest - found.level);
  const [columns, rows] = [width(area), height(area)];
  if (columns * rows * image.components > maxSamples) {
    throw new CodestreamError(`${columns} by ${rows} samples of ${image.components} components are more than ${maxSamples}`);
  }
  let components = null;
  for (const tile of found.tiles.values()) {
    const part = reduced(tile.area, found.finest - found.level);
    const samples = tileSamples(bytes, tile, part, found);
    if (found.tiles.size === 1) components = samples;
    else {
      components ??= Array.from({ length: image.components }, () => new Int32Array(columns * rows));
      samples.forEach((from, c) => place(from, part, components[c], area));
    }
  }
  const { precision, signed } = image;
  return { columns, rows, level: found.level, finest: found.finest, components, precision, signed };
}

function place(from, part, into, area) {
  const [columns, stride] = [width(part), width(area)];
  for (let row = 0; row < height(part); row++) {
    into.set(from.subarray(row * columns, (row + 1) * columns), (part.y0 - area.y0 + row) * stride + part.x0 - area.x0);
  }
}

// The samples of all components of a tile. T.800 Annex G
function tileSamples(bytes, tile, area, { image, level }) {
  const { precision, signed, components: count } = image;
  const planes = Array.from({ length: count }, (_, c) => componentSamples(bytes, tile.components[c], area, level, precision));
  const lossless = tile.components.map(({ coding }) => coding.reversible);
  if (tile.packing.colour) (lossless[0] ? inverseRct : inverseIct)(planes[0], planes[1], planes[2]);
  const shift = signed ? 0 : 2 ** (precision - 1);
  const least = shift - 2 ** (precision - 1);
  const most = least + 2 ** precision - 1;
  return planes.map((samples, c) => (lossless[c] ? clamped(samples, shift, least, most) : rounded(samples, shift, least, most)));
}

// A component of a tile as its wavelet leaves it: integers if it is reversible, else floats.
function componentSamples(bytes, { coding, quantization, resolutions }, area, level, precision) {
  let samples = null;
  for (let r = 0; r <= level; r++) {
    const { bands, area: place } = resolutions[r];
    const decoded = bands.map((band) => bandSamples(bytes, band, coding));
    if (coding.reversible) {
      samples = r ? reversible(place, samples, ...decoded) : decoded[0];
    } else {
      const factors = bands.map((band) => stepSize(band, precision));
      samples = r ? irreversible(place, samples, ...decoded, [1, ...factors]) : Float32Array.from(decoded[0], (x) => x * factors[0]);
    }
  }
  return samples;
}

// The size of what counts as 1 in the samples of a band, which have one bit below those quantized. T.800 E-3
function stepSize(band, precision) {
  const { exponent, mantissa } = band.step();
  const gain = [0, 1, 1, 2][band.kind];
  return 2 ** (precision + gain - exponent - 1) * (1 + mantissa / 2048);
}

// The quantized samples of a band; of an irreversible one twice that, so that half a step can be told.
function bandSamples(bytes, { area, blocks, kind }, { reversible: lossless, causal }) {
  const stride = width(area);
  const out = new Int32Array(stride * height(area));
  for (const block of blocks) {
    if (!block.cleanupLength) continue;
    const plane = block.planes - 1 - block.zeroPlanes - block.skipped;
    if (plane < (block.refinementPasses ? 1 : 0)) throw new CodestreamError("passes below the last bit-plane", block.cleanup);
    const [more, at, length] = together(bytes, block.refinements);
    const fault = decodeBlock(
      bytes, block.cleanup, block.cleanupLength, more, at, length, block.refinementPasses, block.zeroPlanes + block.skipped,
      lossless ? plane : plane + 1, causal, block.columns, block.rows, out, block.top * stride + block.left, stride,
    );
    if (fault) throw new CodestreamError(`a code-block of band ${["LL", "HL", "LH", "HH"][kind]}: ${fault}`, block.cleanup);
  }
  return out;
}

// The bytes of refinements: an array, where they begin in it, and their length. They may have come in two packets.
function together(bytes, refinements) {
  if (!refinements.length) return [bytes, 0, 0];
  if (refinements.length === 1) return [bytes, refinements[0].at, refinements[0].length];
  const length = refinements.reduce((sum, piece) => sum + piece.length, 0);
  const joined = new Uint8Array(length);
  let end = 0;
  for (const piece of refinements) {
    joined.set(bytes.subarray(piece.at, piece.at + piece.length), end);
    end += piece.length;
  }
  return [joined, 0, length];
}

// T.800 G.2, in place.
function inverseRct(y, u, v) {
  for (let i = 0; i < y.length; i++) {
    const green = y[i] - ((u[i] + v[i]) >> 2);
    y[i] = v[i] + green;
    v[i] = u[i] + green;
    u[i] = green;
  }
}

// T.800 G.3, in place.
function inverseIct(y, cb, cr) {
  for (let i = 0; i < y.length; i++) {
    const [luminance, blue, red] = [y[i], cb[i], cr[i]];
    y[i] = luminance + 1.402 * red;
    cb[i] = luminance - 0.344136 * blue - 0.714136 * red;
    cr[i] = luminance + 1.772 * blue;
  }
}

function clamped(samples, shift, least, most) {
  for (let i = 0; i < samples.length; i++) {
    const value = samples[i] + shift;
    samples[i] = value < least ? least : value > most ? most : value;
  }
  return samples;
}

function rounded(samples, shift, least, most) {
  const out = new Int32Array(samples.length);
  for (let i = 0; i < samples.length; i++) {
    const value = Math.floor(samples[i] + shift + 0.5);
    out[i] = value < least ? least : value > most ? most : value;
  }
  return out;
}
