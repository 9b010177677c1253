// The packets of a codestream: which bytes belong to which code-block. T.800 B.9, B.10, T.814 Annex B

import {
  CodestreamError, codingOf, quantizationOf, readMainHeader, readTileHeader, readTilePart, stepOf, tileArea,
} from "./htj2k_headers.js";
import { blocksOf, packets, resolution } from "./htj2k_tiles.js";

const CUT = Symbol("the data ends early, and may");
const MOST_PLANES = 29; // of a band: magnitudes and the half below them stay within 31 bits

// Bits of a packet header, most significant first. After a byte of FF the next holds 7. T.800 B.10.1
class Bits {
  constructor(bytes, at, end, mayEnd) {
    Object.assign(this, { bytes, at, end, mayEnd, left: 0, byte: 0 });
  }

  load() {
    if (this.at >= this.end) {
      if (this.mayEnd) throw CUT;
      throw new CodestreamError("a packet header is longer than its tile-part", this.at);
    }
    const stuffed = this.byte === 0xff;
    this.byte = this.bytes[this.at];
    if (stuffed && this.byte > 0x7f) throw new CodestreamError("a marker inside a packet header", this.at - 1);
    this.at += 1;
    this.left = stuffed ? 7 : 8;
  }

  bit() {
    if (!this.left) this.load();
    this.left -= 1;
    return (this.byte >> this.left) & 1;
  }

  number(count) {
    let value = 0;
    for (let i = 0; i < count; i++) value = value * 2 + this.bit();
    return value;
  }

  finish() {
    if (this.byte === 0xff) this.load();
    return this.at;
  }
}

// A table of small numbers, read piece by piece over all packets of its precinct. T.800 B.10.2
class TagTree {
  constructor(rows, columns) {
    this.levels = [{ columns, at: 0 }];
    let size = rows * columns;
    while (rows * columns > 1) {
      [rows, columns] = [(rows + 1) >> 1, (columns + 1) >> 1];
      this.levels.push({ columns, at: size });
      size += rows * columns;
    }
    this.least = new Uint8Array(size); // what is known of each node
    this.exact = new Uint8Array(size);
  }

  // Whether the number of a leaf is below the threshold. Reads no bit that is not needed to tell.
  isBelow(bits, row, column, threshold) {
    let least = 0;
    for (let level = this.levels.length - 1; level >= 0; level--) {
      const { columns, at } = this.levels[level];
      const node = at + (row >> level) * columns + (column >> level);
      if (this.least[node] > least) least = this.least[node];
      while (least < threshold && !this.exact[node]) {
        if (bits.bit()) this.exact[node] = 1;
        else least += 1;
      }
      this.least[node] = least;
    }
    return least < threshold;
  }
}

// T.800 Table B.4
function codingPasses(bits) {
  if (!bits.bit()) return 1;
  if (!bits.bit()) return 2;
  let more = bits.number(2);
  if (more < 3) return 3 + more;
  more = bits.number(5);
  return more < 31 ? 6 + more : 37 + bits.number(7);
}

const log2 = (value) => 31 - Math.clz32(value);

class Walk {
  constructor(bytes) {
    this.bytes = bytes;
    this.header = readMainHeader(bytes);
    this.tiles = new Map();
    // Each object kept costs one: what a header claims must be near what the data can hold.
    this.budget = 2 ** 19 + 4 * bytes.length;
    this.spend = (count) => {
      this.budget -= count;
      if (this.budget < 0) throw new CodestreamError("more precincts and code-blocks than the data can hold", this.at);
    };
  }

  // Reads tile-parts until all packets of levels 0 to `level` are there (undefined: of all levels) or the data ends.
  run(level) {
    const { image } = this.header;
    let whole = 0;
    this.at = this.header.at;
    for (;;) {
      const part = readTilePart(this.bytes, this.at, image.tiles);
      if (!part) return;
      const tile = this.tile(part);
      if (tile === null) return;
      if (!tile.whole) {
        tile.whole = this.packetsOf(tile, part, level);
        whole += tile.whole ? 1 : 0;
        if (whole === image.tiles) return;
      }
      if (part.end > this.bytes.length) return;
      this.at = part.end;
    }
  }

  tile(part) {
    const own = readTileHeader(this.bytes, part, this.header.image);
    if (own.data === null) return null;
    part.data = own.data;
    if (!this.tiles.has(part.tile)) this.tiles.set(part.tile, this.begin(part, own));
    else if (own.coding || own.codings.size || own.quantization || own.quantizations.size) {
      throw new CodestreamError("COD, COC, QCD or QCC behind the first tile-part", part.header);
    }
    return this.tiles.get(part.tile);
  }

  begin(part, own) {
    const { header } = this;
    const area = tileArea(header.image, part.tile);
    const packing = own.packing ?? header.packing;
    const components = Array.from({ length: header.image.components }, (_, c) => {
      const coding = codingOf(header, own, c);
      this.finest ??= coding.levels;
      if (coding.levels !== this.finest) throw new CodestreamError("not supported: components or tiles of different levels", part.header);
      this.spend(4 * (coding.levels + 1));
      const resolutions = Array.from({ length: coding.levels + 1 }, (_, r) => resolution(area, coding, r));
      const quantization = quantizationOf(header, own, c);
      for (const { bands } of resolutions) {
        for (const band of bands) band.step = () => stepOf(quantization, band.index, band.depth, coding.levels);
      }
      return { coding, quantization, resolutions };
    });
    if (packing.colour && components.slice(1, 3).some(({ coding }) => coding.reversible !== components[0].coding.reversible)) {
      throw new CodestreamError("a colour transform over different wavelets", part.header);
    }
    const tile = { area, packing, components, whole: false, next: null, count: 0 };
    tile.missing = components[0].resolutions.map((_, r) => {
      const precincts = components.map(({ resolutions }) => resolutions[r].precincts);
      return packing.layers * precincts.reduce((sum, { columns, rows }) => sum + columns * rows, 0);
    });
    tile.turns = packets(tile, packing, this.spend);
    return tile;
  }

  // The packets of a tile-part; whether none of the levels wanted lacks one.
  packetsOf(tile, part, level) {
    const wanted = tile.missing.slice(0, level === undefined ? undefined : level + 1);
    let missing = wanted.reduce((sum, count) => sum + count, 0);
    const end = Math.min(part.end, this.bytes.length);
    let at = part.data;
    while (missing && at < end) {
      const turn = tile.next ?? tile.turns.next().value;
      tile.next = turn;
      try {
        at = this.packet(tile, turn, at, end, part.end > this.bytes.length);
      } catch (fault) {
        if (fault === CUT) return false;
        throw fault;
      }
      tile.next = null;
      tile.count += 1;
      tile.missing[turn.r] -= 1;
      if (turn.r < wanted.length) missing -= 1;
    }
    return missing === 0;
  }

  // Reads one packet; where the next begins.
  packet(tile, { c, r, k, layer }, at, end, mayEnd) {
    const { bytes } = this;
    const { sop, eph } = tile.packing;
    if (sop && bytes[at] === 0xff && bytes[at + 1] === 0x91) at += 6;
    const bits = new Bits(bytes, at, end, mayEnd);
    const pieces = [];
    const resolution = tile.components[c].resolutions[r];
    if (bits.bit()) {
      if (!resolution.states.has(k)) resolution.states.set(k, resolution.bands.map((band) => this.precinct(resolution, band, k)));
      for (const state of resolution.states.get(k)) readBand(state, layer, bits, tile.components[c], pieces);
    }
    let after = bits.finish();
    if (eph) {
      if (after + 2 > end && mayEnd) throw CUT;
      if (bytes[after] !== 0xff || bytes[after + 1] !== 0x92) throw new CodestreamError("no EPH behind a packet header", after);
      after += 2;
    }
    const body = after;
    for (const piece of pieces) after += piece.length;
    if (after > end) {
      if (mayEnd) throw CUT;
      throw new CodestreamError("a packet is longer than its tile-part", at);
    }
    after = body;
    for (const piece of pieces) {
      add(piece, after);
      after += piece.length;
    }
    return after;
  }

  precinct(resolution, band, k) {
    const found = blocksOf(resolution, band, k);
    this.spend(found.columns * found.rows);
    const { rows, columns } = found;
    const tree = () => (rows * columns ? new TagTree(rows, columns) : null);
    return { ...found, band, inclusion: tree(), zeroPlanes: tree(), blocks: new Array(rows * columns).fill(null) };
  }
}

// What a packet header says of the code-blocks of one band. T.800 B.10.3 to B.10.7
function readBand(state, layer, bits, component, pieces) {
  const { band, rows, columns, blocks } = state;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let block = blocks[row * columns + column];
      if (!block) {
        if (!state.inclusion.isBelow(bits, row, column, layer + 1)) continue;
        block = firstIncluded(state, row, column, bits, component);
        blocks[row * columns + column] = block;
        band.blocks.push(block);
      } else if (!bits.bit()) {
        continue;
      }
      contribution(block, bits, pieces);
    }
  }
}

function firstIncluded(state, row, column, bits, { quantization }) {
  const { band, inside } = state;
  const planes = quantization.guard + band.step().exponent - 1;
  let zeroPlanes = 0;
  while (!state.zeroPlanes.isBelow(bits, row, column, zeroPlanes + 1)) {
    zeroPlanes += 1;
    if (zeroPlanes >= planes) throw new CodestreamError(`a code-block lacks more than ${planes} bit-planes`, bits.at);
  }
  if (planes > MOST_PLANES) throw new CodestreamError(`not supported: bands of ${planes} bit-planes`, bits.at);
  const x = (state.column + column) * 2 ** band.xcb;
  const y = (state.row + row) * 2 ** band.ycb;
  const [x0, y0] = [Math.max(x, inside.x0), Math.max(y, inside.y0)];
  return {
    left: x0 - band.area.x0, top: y0 - band.area.y0,
    columns: Math.min(x + 2 ** band.xcb, inside.x1) - x0, rows: Math.min(y + 2 ** band.ycb, inside.y1) - y0,
    planes, zeroPlanes, lblock: 3, passes: 0,
    // The HT set decoded is the last one: where its cleanup pass is, above which bit-planes, and its refinements.
    cleanup: 0, cleanupLength: 0, skipped: 0, refinements: [], refinementPasses: 0,
  };
}

// Passes and bytes that a code-block gets: HT sets of a cleanup pass and up to two refinements, each set after the
// first for one bit-plane less. Placeholder passes, in threes and without bytes, come before the first. T.814 Annex B
function contribution(block, bits, pieces) {
  let passes = codingPasses(bits);
  while (bits.bit()) block.lblock += 1;
  const length = (count) => {
    const width = block.lblock + log2(count);
    if (width > 32) throw new CodestreamError("a length of more than 32 bits", bits.at);
    block.passes += count;
    return bits.number(width);
  };
  if (!block.begun) {
    const refinements = (block.passes + passes - 1) % 3;
    const found = length(passes - refinements < 1 ? passes : passes - refinements);
    if (passes - refinements < 1) {
      if (found) throw new CodestreamError("placeholder passes have bytes", bits.at);
      return;
    }
    if (!found) {
      // Placeholders alone: the length is as wide as that of all of them.
      if (bits.number(log2(passes) - log2(passes - refinements))) throw new CodestreamError("placeholder passes have bytes", bits.at);
      block.passes += refinements;
      return;
    }
    block.begun = true;
    pieces.push({ block, length: found, count: 0, skipped: (block.passes - 1) / 3 });
    passes = refinements;
  }
  while (passes) {
    const position = block.passes % 3;
    const count = position ? Math.min(passes, 3 - position) : 1;
    const skipped = position ? -1 : block.passes / 3;
    pieces.push({ block, length: length(count), count: position ? count : 0, skipped });
    passes -= count;
  }
}

function add({ block, length, count, skipped }, at) {
  if (skipped < 0) {
    block.refinementPasses += count;
    block.refinements.push({ at, length });
  } else {
    Object.assign(block, { cleanup: at, cleanupLength: length, skipped, refinements: [], refinementPasses: 0 });
  }
}

// All packets of levels 0 to `level`, or of the highest level that is wholly there.
export function walk(bytes, level) {
  const found = new Walk(bytes);
  const { header } = found;
  found.run(level);
  if (level > found.finest) throw new CodestreamError(`level ${level}: the finest is ${found.finest}`);
  const complete = (r) => found.tiles.size === header.image.tiles && [...found.tiles.values()].every((tile) => tile.missing[r] === 0);
  let highest = -1;
  while (highest < found.finest && complete(highest + 1)) highest += 1;
  const wanted = level ?? Math.max(0, highest);
  if (wanted > highest) throw new CodestreamError(`level ${wanted} is not wholly there: the data ends`, bytes.length);
  return { image: header.image, tiles: found.tiles, level: wanted, finest: found.finest };
}
