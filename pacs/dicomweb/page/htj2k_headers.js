// The marker segments of a codestream. T.800 Annex A, T.814 Annex A

export class CodestreamError extends Error {
  constructor(reason, at) {
    super(at === undefined ? reason : `${reason} at byte ${at}`);
    this.name = "CodestreamError";
  }
}

export const SOT = 0xff90;
const [SOC, SIZ, COD, COC, QCD, QCC, SOD, EOC] = [0xff4f, 0xff51, 0xff52, 0xff53, 0xff5c, 0xff5d, 0xff93, 0xffd9];
const REFUSED = new Map([
  [0xff5e, "a region of interest (RGN)"], [0xff5f, "a change of progression (POC)"],
  [0xff60, "packed packet headers (PPM)"], [0xff61, "packed packet headers (PPT)"],
  // T.801 Table A.1
  ...["QPD", "QPC"].map((name, i) => [0xff5a + i, `${name} of Part 2`]),
  ...["DCO", "VMS", "DFS", "ADS", "MCT", "MCC", "NLT", "MCO", "CBD", "ATK"].map((name, i) => [0xff70 + i, `${name} of Part 2`]),
]);
const MOST_COMPONENTS = 256;
const MOST_TILES = 65535;
const MOST_PRECISION = 26;

const u16 = (bytes, at) => (bytes[at] << 8) | bytes[at + 1];
const u32 = (bytes, at) => u16(bytes, at) * 65536 + u16(bytes, at + 2);
export const ceilDiv = (value, divisor) => Math.ceil(value / divisor);

// What a header sets. Of the tile before of the image, of a component before of all. T.800 A.6
const parameters = () => ({ packing: null, coding: null, codings: new Map(), quantization: null, quantizations: new Map() });

export function readMainHeader(bytes) {
  if (bytes.length < 2 || u16(bytes, 0) !== SOC) throw new CodestreamError("no codestream", 0);
  const header = { image: null, ...parameters(), at: 2 };
  header.at = readSegments(bytes, 2, bytes.length, header, true);
  if (u16(bytes, header.at) !== SOT) throw new CodestreamError("no SOT behind the main header", header.at);
  if (!header.packing) throw new CodestreamError("the main header lacks COD", header.at);
  return header;
}

// A tile-part at its SOT. `end` is where it should end, which may lie behind the data (if Psot is 0 it is not told);
// null: only EOC or nothing is there.
export function readTilePart(bytes, at, tileCount) {
  if (at + 12 > bytes.length || u16(bytes, at) === EOC) return null;
  if (u16(bytes, at) !== SOT || u16(bytes, at + 2) !== 10) throw new CodestreamError("no SOT where a tile-part should begin", at);
  const [tile, length, number] = [u16(bytes, at + 4), u32(bytes, at + 6), bytes[at + 10]];
  if (tile >= tileCount) throw new CodestreamError(`tile ${tile} of ${tileCount}`, at);
  if (length && length < 14) throw new CodestreamError("Psot is out of range", at);
  return { tile, number, header: at + 12, end: length ? at + length : Infinity };
}

// What the header of a tile-part sets; `data` is where its packets begin, null if the bytes end before.
export function readTileHeader(bytes, part, image) {
  const header = { image, ...parameters(), data: null };
  const end = Math.min(part.end, bytes.length);
  const cut = part.end > bytes.length;
  const at = readSegments(bytes, part.header, end, header, false, cut);
  if (at !== null) header.data = at + 2;
  return header;
}

export function codingOf(header, tile, component) {
  return tile.codings.get(component) ?? tile.coding ?? header.codings.get(component) ?? header.coding;
}

export function quantizationOf(header, tile, component) {
  const found =
    tile.quantizations.get(component) ?? tile.quantization ?? header.quantizations.get(component) ?? header.quantization;
  if (!found) throw new CodestreamError(`no QCD for component ${component}`, header.at);
  return found;
}

// Where the segments end: at SOT or SOD; null when the bytes end before and may.
function readSegments(bytes, at, end, header, main, mayEnd = false) {
  const ended = (where) => {
    if (mayEnd) return null;
    throw new CodestreamError("the data ends inside a header", where);
  };
  for (;;) {
    if (at + 2 > end) return ended(at);
    const marker = u16(bytes, at);
    if (marker === (main ? SOT : SOD)) return at;
    if (marker < 0xff30 || marker === SOC || marker === SOD || marker === EOC || marker === SOT) {
      throw new CodestreamError(`${marker.toString(16)} where a marker segment should be`, at);
    }
    if (marker <= 0xff3f) {
      at += 2; // markers without a segment: T.800 Table A.1
      continue;
    }
    if (at + 4 > end) return ended(at);
    const next = at + 2 + u16(bytes, at + 2);
    if (next < at + 4) throw new CodestreamError("a marker segment is shorter than its length", at);
    if (next > end) return ended(at);
    readSegment(bytes, marker, at, next, header, main);
    at = next;
  }
}

function readSegment(bytes, marker, at, end, header, main) {
  if (marker === SIZ) {
    if (!main || header.image) throw new CodestreamError("a second SIZ", at);
    header.image = readSize(bytes, at, end);
    return;
  }
  if (!header.image) throw new CodestreamError("SIZ is not the first marker segment", at);
  const count = header.image.components;
  let body = at + 4;
  let component = null;
  if (marker === COC || marker === QCC) {
    component = bytes[body];
    body += 1;
    if (body > end || component >= count) throw new CodestreamError(`component ${component} of ${count}`, at);
  }
  if (marker === COD) {
    if (end - body < 10) throw new CodestreamError("COD is too short", at);
    header.packing = readPacking(bytes, body, at, count);
    header.coding = readCoding(bytes, body + 5, end, bytes[body] & 1, at);
  } else if (marker === COC) {
    if (end - body < 6 || bytes[body] > 1) throw new CodestreamError("COC is out of range", at);
    header.codings.set(component, readCoding(bytes, body + 1, end, bytes[body], at));
  } else if (marker === QCD) {
    header.quantization = readQuantization(bytes, body, end, at);
  } else if (marker === QCC) {
    header.quantizations.set(component, readQuantization(bytes, body, end, at));
  } else if (REFUSED.has(marker)) {
    throw new CodestreamError(`not supported: ${REFUSED.get(marker)}`, at);
  } // Others tell what is not needed here: CAP, TLM, PLM, PLT, CRG, COM, PRF, CPF.
}

// T.800 A.5.1
function readSize(bytes, at, end) {
  const body = at + 4;
  if (end - body < 39) throw new CodestreamError("SIZ is too short", at);
  const [x1, y1, x0, y0, tileWidth, tileHeight, tileX, tileY] = Array.from({ length: 8 }, (_, i) => u32(bytes, body + 2 + 4 * i));
  const components = u16(bytes, body + 34);
  if (end - body !== 36 + 3 * components || !components) throw new CodestreamError("SIZ has not as many components as it says", at);
  if (u16(bytes, body) & 0x8000 && u16(bytes, body) & 0x3fff) throw new CodestreamError("not supported: capabilities of Part 2", at);
  if (components > MOST_COMPONENTS) throw new CodestreamError(`not supported: ${components} components`, at);
  const depth = bytes[body + 36];
  for (let i = body + 36; i < end; i += 3) {
    if (bytes[i] !== depth) throw new CodestreamError("not supported: components of different precisions", i);
    if (bytes[i + 1] !== 1 || bytes[i + 2] !== 1) throw new CodestreamError("not supported: sub-sampled components", i);
  }
  const precision = (depth & 0x7f) + 1;
  if (precision > MOST_PRECISION) throw new CodestreamError(`not supported: a precision of ${precision} bits`, at);
  const fits = tileX <= x0 && tileY <= y0 && tileX + tileWidth > x0 && tileY + tileHeight > y0;
  if (x1 <= x0 || y1 <= y0 || !fits) throw new CodestreamError("the areas of SIZ contradict each other", at);
  const across = ceilDiv(x1 - tileX, tileWidth);
  const tiles = across * ceilDiv(y1 - tileY, tileHeight);
  if (tiles > MOST_TILES) throw new CodestreamError(`SIZ has ${tiles} tiles`, at);
  return {
    area: { x0, y0, x1, y1 }, tileWidth, tileHeight, tileX, tileY, across, tiles,
    components, precision, signed: depth > 127,
  };
}

// Tile `number` on the reference grid. T.800 B.3
export function tileArea(image, number) {
  const x = image.tileX + (number % image.across) * image.tileWidth;
  const y = image.tileY + Math.floor(number / image.across) * image.tileHeight;
  return {
    x0: Math.max(x, image.area.x0), y0: Math.max(y, image.area.y0),
    x1: Math.min(x + image.tileWidth, image.area.x1), y1: Math.min(y + image.tileHeight, image.area.y1),
  };
}

// T.800 Tables A.13, A.14
function readPacking(bytes, body, at, components) {
  const [style, order, layers, mct] = [bytes[body], bytes[body + 1], u16(bytes, body + 2), bytes[body + 4]];
  if (style > 7 || order > 4 || !layers) throw new CodestreamError("COD is out of range", at);
  if (mct > 1) throw new CodestreamError("not supported: component transforms of Part 2", at);
  if (mct && components < 3) throw new CodestreamError("a colour transform of fewer than 3 components", at);
  return { sop: (style & 2) > 0, eph: (style & 4) > 0, order, layers, colour: mct === 1 };
}

// SPcod, SPcoc: T.800 Table A.15, T.814 A.4
function readCoding(bytes, body, end, custom, at) {
  const [levels, width, height, style, transform] = bytes.subarray(body, body + 5);
  const [xcb, ycb] = [width + 2, height + 2];
  if (levels > 32 || xcb > 10 || ycb > 10 || xcb + ycb > 12) throw new CodestreamError("COD or COC is out of range", at);
  if ((style & 0xc0) !== 0x40) {
    throw new CodestreamError(`not supported: code-blocks ${style & 0x40 ? "of Part 1 among HT ones" : "of Part 1"}`, at);
  }
  if (style & 0x37) throw new CodestreamError(`code-block style ${style.toString(16)} is not one of HT`, at);
  if (transform > 1) throw new CodestreamError("not supported: wavelets of Part 2", at);
  if (end - body - 5 !== (custom ? levels + 1 : 0)) throw new CodestreamError("COD or COC has not a precinct size for each level", at);
  const precincts = Array.from({ length: levels + 1 }, (_, r) => (custom ? bytes[body + 5 + r] : 0xff));
  if (precincts.some((size, r) => r && (!(size & 15) || !(size >> 4)))) throw new CodestreamError("a precinct size of 1", at);
  return {
    levels, xcb, ycb, causal: (style & 8) > 0, reversible: transform === 1,
    precincts: precincts.map((size) => [size & 15, size >> 4]),
  };
}

// T.800 A.6.4
function readQuantization(bytes, body, end, at) {
  if (end - body < 2) throw new CodestreamError("QCD or QCC is too short", at);
  const [style, guard] = [bytes[body] & 31, bytes[body] >> 5];
  if (style > 2) throw new CodestreamError("not supported: quantization of Part 2", at);
  const steps = [];
  for (let i = body + 1; i + (style ? 2 : 1) <= end; i += style ? 2 : 1) {
    const value = style ? u16(bytes, i) : bytes[i] << 8;
    steps.push({ exponent: value >> 11, mantissa: style ? value & 0x7ff : 0 });
  }
  if (!steps.length) throw new CodestreamError("QCD or QCC is too short", at);
  return { derived: style === 1, guard, steps };
}

// Exponent and mantissa of band `index` (LL, then HL, LH, HH of each level), which is of decomposition level `depth`.
// T.800 E-5
export function stepOf(quantization, index, depth, levels) {
  if (quantization.derived) {
    const { exponent, mantissa } = quantization.steps[0];
    return { exponent: exponent - levels + depth, mantissa };
  }
  const found = quantization.steps[index];
  if (!found) throw new CodestreamError(`QCD has no step size for band ${index}`);
  return found;
}
