// The frames of a series, and what is held of each: a prefix of its codestream, and what was decoded of that.

const FIRST = 128; // samples that the longer side of the first rung has at least
const HT = new Set(["201", "202", "203"].map((end) => `1.2.840.10008.1.2.4.${end}`)); // HTJ2K
const MADE = "1.2.840.10008.1.2.4.202"; // what the server makes of other codecs without loss
const LOSSY = "1.2.840.10008.1.2.4.203";
const CLASSIC = new Set(["90", "91", "92", "93"].map((end) => `1.2.840.10008.1.2.4.${end}`)); // JPEG 2000 Part 1 and 2
const LOSSLESS = new Set(["90", "92"].map((end) => `1.2.840.10008.1.2.4.${end}`)); // of them
const COLOURS = new Set(["RGB", "YBR_RCT", "YBR_ICT", "YBR_FULL"]);
export const DECIBELS = 45;

const accepting = (syntax) => `image/jphc; transfer-syntax=${syntax}`;

/** A codestream as far as it is here: never more is claimed of it than has come. */
export class Codestream {
  /** `ends` of its resolution levels, coarsest first; null where they are not known before its header is here. */
  constructor(url, accept, ends = null, etag = "") {
    Object.assign(this, { url, accept, ends, etag, total: ends?.at(-1) ?? null, length: 0, held: new Uint8Array(0) });
    this.indexed = ends !== null;
  }

  /** The finest resolution level that is wholly here, -1 for none. */
  get level() {
    let reached = -1;
    while (this.ends && this.ends[reached + 1] <= this.length) reached += 1;
    return reached;
  }

  get finest() {
    return this.ends ? this.ends.length - 1 : null;
  }

  /** The bytes up to the end of a level. */
  upTo(level) {
    return this.held.slice(0, Math.min(this.ends[level], this.length));
  }

  /** Take in the bytes from `from` on. Throws where they do not continue what is here. */
  append(data, from, total) {
    if (from !== this.length || (this.total !== null && total !== this.total) || from + data.length > total) {
      throw new Error("the bytes of a frame do not fit those before");
    }
    this.total = total;
    if (from + data.length > this.held.length) {
      // Room for what is likely to follow: to the end of the next level.
      const next = this.ends?.find((end) => end >= from + data.length) ?? total;
      const grown = new Uint8Array(Math.max(from + data.length, Math.min(next, total)));
      grown.set(this.held.subarray(0, this.length));
      this.held = grown;
    }
    this.held.set(data, from);
    this.length += data.length;
    this.ends ??= endsOf(this.held.subarray(0, this.length), total);
    if (!this.ends && this.length === total) this.ends = [total];
  }

  /** Forget what lies behind `length` bytes. */
  shorten(length = 0) {
    if (length >= this.length) return;
    this.held = this.held.slice(0, length);
    this.length = length;
    if (!length && !this.indexed) [this.ends, this.total] = [null, null];
  }
}

/**
 * Where the resolution levels end, by the lengths of the tile-parts that the main header tells (TLM), one for each
 * level; null where it does not, or is not here yet. ISO/IEC 15444-1 A.6.1, A.7.1
 */
function endsOf(bytes, total) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const lengths = [];
  let at = 2, levels = 0;
  while (at + 4 <= bytes.length) {
    const marker = view.getUint16(at), size = view.getUint16(at + 2);
    if (marker === 0xff90) {
      if (lengths.length !== levels) return [total];
      const ends = lengths.map((_, number) => lengths.slice(0, number + 1).reduce((sum, one) => sum + one, at));
      ends[ends.length - 1] = total; // with the end marker
      return ends.every((end, number) => end > (ends[number - 1] ?? at) && end <= total) ? ends : [total];
    }
    if (size < 2 || at + 2 + size > bytes.length) return marker >> 8 === 0xff && size >= 2 ? null : [total];
    if (marker === 0xff52) levels = bytes[at + 9] + 1;
    if (marker === 0xff55) {
      const named = (bytes[at + 5] >> 4) & 3, wide = bytes[at + 5] & 0x40; // bytes of a tile's index, width of a length
      const step = named + (wide ? 4 : 2);
      for (let entry = at + 6; entry + step <= at + 2 + size; entry += step) {
        lengths.push(wide ? view.getUint32(entry + named) : view.getUint16(entry + named));
      }
    }
    at += 2 + size;
  }
  return null;
}

/** A frame in reading order. `url` and `instance` are paths below the DICOMweb root. */
export class Frame {
  constructor(series, entry, shape) {
    this.instance = `${series}/instances/${entry.instance}`;
    this.url = `${series}/${entry.url}`;
    this.number = entry.frame;
    this.etag = entry.etag;
    this.shape = shape;
    this.columns = shape.columns;
    this.rows = shape.rows;
    const ht = HT.has(entry.transferSyntax);
    // What was lossy in colour has no window to change, and would only grow in another codec.
    const made = shape.samplesPerPixel === 1 ? CLASSIC : LOSSLESS;
    // What the page cannot paint itself comes as a picture that the server has painted.
    this.byServer = !paintable(shape) || !(ht || made.has(entry.transferSyntax));
    this.streamed = ht && !this.byServer; // the stream of the series brings its first rung
    const known = ht && entry.ends.length > 0;
    this.crc32c = known ? entry.crc32c : ""; // of the whole codestream; "" where that is made when it is asked for
    this.stored = new Codestream(this.url, accepting(ht ? entry.transferSyntax : MADE), known ? entry.ends : null, known ? entry.etag : "");
    this.lossy = new Codestream(`${this.url}?quality=${DECIBELS}`, accepting(LOSSY));
    this.isLossyMade = true; // until the server says otherwise, or that is no shorter
    this.decoded = new Map(); // rung -> samples
  }

  /** [columns, rows] of a resolution level. ISO/IEC 15444-1 B.5 */
  sizeOf(level) {
    const dropped = 2 ** (this.stored.finest - level);
    return [Math.ceil(this.columns / dropped), Math.ceil(this.rows / dropped)];
  }

  /** The level of the first rung; null where its levels are not known yet. */
  get first() {
    if (!this.stored.ends) return null;
    return this.stored.ends.findIndex((_, level) => level === this.stored.finest || Math.max(...this.sizeOf(level)) >= FIRST);
  }

  get hasFirst() {
    return this.stored.ends !== null && this.stored.level >= this.first;
  }

  /** The coarsest level that is at least so many columns wide; null where its levels are not known yet. */
  levelOf(columns) {
    if (!this.stored.ends) return null;
    return this.stored.ends.findIndex((_, level) => level === this.stored.finest || this.sizeOf(level)[0] >= columns);
  }

  // Rungs are numbers, in order: r is resolution level r of the stored codestream, r - 0.5 that level of the lossy form.

  /** The level of the lossy form that is as large as `level` of the stored one: it may have another number of them. */
  lossyLevel(level) {
    return Math.max(0, level - this.stored.finest + this.lossy.finest);
  }

  /** Whether the lossy form is here up to `level`. */
  hasLossy(level) {
    return this.lossy.ends !== null && this.lossy.level >= this.lossyLevel(level);
  }

  /** The best rung held, as far as `target` needs it; null for none. */
  best(target) {
    let level = target;
    while (level > this.stored.level) {
      if (this.hasLossy(level)) return level - 0.5;
      level -= 1;
    }
    return level < 0 ? null : level;
  }

  /** The bytes and the level to decode for a rung, how many samples that has, and the bytes' checksum if it is known. */
  source(rung) {
    const [columns, rows] = this.sizeOf(Math.ceil(rung));
    const most = columns * rows * this.shape.samplesPerPixel;
    if (Number.isInteger(rung)) {
      return { bytes: this.stored.upTo(rung), level: rung, most, crc32c: rung === this.stored.finest ? this.crc32c : "" };
    }
    const level = this.lossyLevel(Math.ceil(rung));
    return { bytes: this.lossy.upTo(level), level, most };
  }

  /** The best of what is decoded; null for nothing. */
  get bestDecoded() {
    return this.decoded.size ? Math.max(...this.decoded.keys()) : null;
  }

  /** Keep what was decoded, in place of what is worse. */
  keep(rung, samples, target) {
    this.decoded.set(rung, samples);
    for (const other of [...this.decoded.keys()]) if (other < rung) this.decoded.delete(other);
    if (Number.isInteger(rung) && rung >= target) this.lossy.shorten();
  }

  /** Bytes in memory. */
  get size() {
    let size = this.stored.held.length + this.lossy.held.length;
    for (const samples of this.decoded.values()) size += samples.size;
    return size;
  }

  /** Give memory back: all but the first rung, or that too. */
  forget(everything) {
    this.decoded.clear();
    this.lossy.shorten();
    this.stored.shorten(everything || !this.stored.ends ? 0 : this.stored.ends[this.first]);
  }
}

/** Whether the page can make gray levels or colours of such samples: see shades.js. */
function paintable(shape) {
  if (shape.floating || shape.highBit !== shape.bitsStored - 1) return false;
  if (shape.samplesPerPixel === 1) {
    return /^MONOCHROME[12]$/.test(shape.photometricInterpretation) && shape.bitsStored > 1 && [8, 16].includes(shape.bitsAllocated);
  }
  return shape.samplesPerPixel === 3 && shape.bitsAllocated === 8 && shape.bitsStored === 8 && !shape.pixelRepresentation
    && COLOURS.has(shape.photometricInterpretation);
}

/**
 * The frames of an index (docs/progressive.md) in reading order; those of `before` keep what is held of them, unless
 * another image has come in its place.
 */
export function framesOf(series, index, before = []) {
  const known = new Map(before.map((frame) => [frame.url, frame]));
  return index.frames.map((entry) => {
    const frame = new Frame(series, entry, index.shapes[entry.shape]);
    const held = known.get(frame.url);
    return held?.etag === frame.etag ? held : frame;
  });
}

/** 0 to `count` - 1, from `first` to both sides by turns: as the stream of a series goes. */
export function* outwards(count, first) {
  for (let distance = 0; distance < count; distance++) {
    if (first + distance < count) yield first + distance;
    if (distance && first - distance >= 0) yield first - distance;
  }
}
