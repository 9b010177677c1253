// The HT block decoder: the bytes of one code-block to its quantized samples. T.814 clause 7
//
// Bytes are freed of stuffed bits first, into words of 32 bits, so that any place of a segment can be read without a
// branch. `decodeBlock` then takes two passes over the quads (two by two samples) of a code-block: which samples are
// significant, from the MEL and VLC segments; their magnitudes and signs, from MagSgn.

import {
  BOTH, BOTH_ABOVE_2, BOTH_INITIAL, FOLLOWING_QUADS, INITIAL_QUADS, LENGTH_SHIFT, RUN_EXPONENTS, U_PAIRS,
} from "./htj2k_tables.js";

const MOST_CLEANUP = 65534; // bytes of a cleanup pass, and of what refines it
const MOST_REFINEMENT = 2046;
const MOST_SUFFIX = 4079; // bytes of MEL and VLC together

const MAGNITUDES = new Int32Array((MOST_CLEANUP >> 2) + 16);
const CODES = new Int32Array((MOST_SUFFIX >> 2) + 16);
const AHEAD = 8; // words behind the end of a segment that may be read: more than any four samples take
// A code-block has at most 4096 samples and 1024 in a row or column. Each row of quads has a zero on both sides.
const QUADS = new Int32Array(3 * 513 + 4096);
const BELOW = new Int32Array(512 + 2);
const SIGNIFICANT = new Uint8Array((1024 + 2) * 6 + 4096 * 2);

const RHO = 15;
const U_SHIFT = 12; // in QUADS: rho, e_k and e_1 as in the tables, then u

// Bits of bytes `from` to `to`, the lowest first; after FF a byte holds 7. Behind them `fill`. How many bits there are.
function unstuffForward(bytes, from, to, words, fill) {
  let [word, bits, count, stuffed] = [0, 0, 0, 0];
  for (let i = from; i < to; i++) {
    const byte = bytes[i];
    const held = 8 - stuffed;
    word |= byte << bits;
    bits += held;
    if (bits >= 32) {
      words[count] = word;
      count += 1;
      bits -= 32;
      word = byte >>> (held - bits);
    }
    stuffed = byte === 255 ? 1 : 0;
  }
  words[count] = word | (fill << bits);
  for (let i = 1; i <= AHEAD; i++) words[count + i] = fill;
  return count * 32 + bits;
}

// The same of a segment that grows backward from byte `from` to `to`, behind `bits` bits in `word` that are read
// already: after more than 8F a byte of 7F holds 7 bits. Zeros follow.
function unstuffBackward(bytes, from, to, words, word, bits, above) {
  let count = 0;
  for (let i = from; i >= to; i--) {
    const byte = bytes[i];
    const held = above && (byte & 0x7f) === 0x7f ? 7 : 8;
    word |= byte << bits;
    bits += held;
    if (bits >= 32) {
      words[count] = word;
      count += 1;
      bits -= 32;
      word = byte >>> (held - bits);
    }
    above = byte > 0x8f;
  }
  words[count] = word;
  for (let i = 1; i <= AHEAD; i++) words[count + i] = 0;
  return count * 32 + bits;
}

// The next 32 bits.
function peek(words, at) {
  const word = at >> 5;
  const bit = at & 31;
  return (words[word] >>> bit) | ((words[word + 1] << 1) << (31 - bit));
}

// Events of the MEL segment, bytes `at` to `end`, of whose last one the lower half is not MEL's. T.814 7.3.3
class Mel {
  start(bytes, at, end) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
    this.byte = 0;
    this.left = 0;
    this.state = 0;
    this.zeros = 0;
    this.one = false;
  }

  bit() {
    if (this.left === 0) {
      this.left = this.byte === 255 ? 7 : 8;
      this.byte = this.at < this.end ? this.bytes[this.at] : 255;
      if (this.at === this.end - 1) this.byte |= 15;
      this.at += 1;
    }
    this.left -= 1;
    return (this.byte >> this.left) & 1;
  }

  event() {
    if (this.zeros === 0 && !this.one) this.run();
    if (this.zeros > 0) {
      this.zeros -= 1;
      return 0;
    }
    this.one = false;
    return 1;
  }

  run() {
    const exponent = RUN_EXPONENTS[this.state];
    if (this.bit()) {
      this.zeros = 1 << exponent;
      if (this.state < 12) this.state += 1;
      return;
    }
    for (let i = 0; i < exponent; i++) this.zeros = (this.zeros << 1) | this.bit();
    this.one = true;
    if (this.state > 0) this.state -= 1;
  }
}

const MEL = new Mel();

// The significance, exponents and u of all quads into QUADS. `end`: bits in CODES. T.814 7.3.5, 7.3.6
//
// A u of 33 and more has an extension, but no code-block that is accepted has so many bit-planes.
function readQuads(end, columns, rows) {
  const step = columns + 2;
  let at = 0;
  for (let row = 0; row < rows; row++) {
    const base = row * step + 1;
    const above = base - step;
    const table = row === 0 ? INITIAL_QUADS : FOLLOWING_QUADS;
    let context = 0; // what the quads before tell
    QUADS[base - 1] = 0;
    QUADS[base + columns] = 0;
    for (let q = 0; q < columns; q += 2) {
      if (at > end) at = end;
      let window = peek(CODES, at);
      if (row > 0) context |= ((QUADS[above + q] >> 1) & 5) | ((QUADS[above + q + 1] << 1) & 4);
      let first = table[(context << 7) | (window & 127)];
      if (context === 0 && MEL.event() === 0) first = 0;
      let length = first >> LENGTH_SHIFT;
      at += length;
      window >>>= length;
      let second = 0;
      if (q + 1 < columns) {
        if (row === 0) context = ((first >> 1) & 7) | (first & 1);
        else {
          context = (((first >> 1) | (first >> 2)) & 2) | ((QUADS[above + q] >> 3) & 1);
          context |= ((QUADS[above + q + 1] >> 1) & 5) | ((QUADS[above + q + 2] << 1) & 4);
        }
        second = table[(context << 7) | (window & 127)];
        if (context === 0 && MEL.event() === 0) second = 0;
        length = second >> LENGTH_SHIFT;
        at += length;
        window >>>= length;
        if (row === 0) context = ((second >> 1) & 7) | (second & 1);
        else context = (((second >> 1) | (second >> 2)) & 2) | ((QUADS[above + q + 1] >> 3) & 1);
      }
      let mode = ((first >> 12) & 1) | ((second >> 11) & 2);
      let u = 0;
      let v = 0;
      if (mode > 0) {
        if (row === 0 && mode === BOTH) mode = MEL.event() === 0 ? BOTH_INITIAL : BOTH_ABOVE_2;
        const pair = U_PAIRS[(mode << 6) | (window & 63)];
        window >>>= pair & 7;
        u = ((pair >> 9) & 15) + (window & ~(-1 << ((pair >> 3) & 7)));
        window >>>= (pair >> 3) & 7;
        v = (pair >> 13) + (window & ~(-1 << ((pair >> 6) & 7)));
        at += (pair & 7) + ((pair >> 3) & 7) + ((pair >> 6) & 7);
      }
      QUADS[base + q] = (first & 0xfff) | (u << U_SHIFT);
      if (q + 1 < columns) QUADS[base + q + 1] = (second & 0xfff) | (v << U_SHIFT);
    }
  }
}

// Magnitudes and signs into `out`: those of bit-plane `plane` and above, and half of what lies below. False if an
// exponent is above `limit`. T.814 7.3.7, 7.3.8
function readMagnitudes(end, width, height, plane, limit, out, place, stride) {
  const columns = (width + 1) >> 1;
  const half = plane > 0 ? 1 << (plane - 1) : 0;
  let at = 0;
  BELOW.fill(0, 0, columns + 1);
  for (let y = 0; y < height; y += 2) {
    const base = (y >> 1) * (columns + 2) + 1;
    const inRow = y + 1 < height ? RHO : 5;
    let right = 0; // the sample at the lower right of the quad before
    for (let q = 0; q < columns; q++) {
      const quad = QUADS[base + q];
      const above = BELOW[q] | BELOW[q + 1];
      let left = 0;
      let last = 0;
      let rho = quad & RHO;
      if (rho > 0) {
        let exponent = quad >> U_SHIFT;
        // The least exponent of the samples above, if more than one of these is significant.
        exponent += (rho & (rho - 1)) === 0 ? 1 : 31 - Math.clz32(above | 2);
        if (exponent > limit) return false;
        if (at > end) at = end;
        rho &= 2 * q + 1 < width ? inRow : inRow & 3;
        const o = place + y * stride + 2 * q;
        if (rho & 1) {
          const bits = exponent - ((quad >> 4) & 1);
          const value = (peek(MAGNITUDES, at) & ~(-1 << bits)) | (((quad >> 8) & 1) << bits);
          const magnitude = (((value >>> 1) + 1) << plane) | half;
          out[o] = value & 1 ? -magnitude : magnitude;
          at += bits;
        }
        if (rho & 2) {
          const bits = exponent - ((quad >> 5) & 1);
          left = (peek(MAGNITUDES, at) & ~(-1 << bits)) | (((quad >> 9) & 1) << bits);
          const magnitude = (((left >>> 1) + 1) << plane) | half;
          out[o + stride] = left & 1 ? -magnitude : magnitude;
          at += bits;
        }
        if (rho & 4) {
          const bits = exponent - ((quad >> 6) & 1);
          const value = (peek(MAGNITUDES, at) & ~(-1 << bits)) | (((quad >> 10) & 1) << bits);
          const magnitude = (((value >>> 1) + 1) << plane) | half;
          out[o + 1] = value & 1 ? -magnitude : magnitude;
          at += bits;
        }
        if (rho & 8) {
          const bits = exponent - ((quad >> 7) & 1);
          last = (peek(MAGNITUDES, at) & ~(-1 << bits)) | (((quad >> 11) & 1) << bits);
          const magnitude = (((last >>> 1) + 1) << plane) | half;
          out[o + stride + 1] = last & 1 ? -magnitude : magnitude;
          at += bits;
        }
      }
      BELOW[q] = right | left;
      right = last;
    }
    BELOW[columns] = right;
  }
  return true;
}

// Which samples the cleanup pass found, with a border of zeros, one byte each: 1 there, 2 by SigProp.
function markSignificant(width, height, out, place, stride) {
  const step = width + 2;
  SIGNIFICANT.fill(0, 0, step * (height + 2));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) if (out[place + y * stride + x] !== 0) SIGNIFICANT[(y + 1) * step + x + 1] = 1;
  }
}

// SigProp: samples beside significant ones, in groups of four by four, all bits of a group before its signs. T.814 7.4
function propagate(end, width, height, plane, causal, out, place, stride) {
  const step = width + 2;
  const magnitude = (1 << plane) | (plane > 0 ? 1 << (plane - 1) : 0);
  let at = 0;
  for (let top = 0; top < height; top += 4) {
    const bottom = Math.min(top + 4, height);
    for (let left = 0; left < width; left += 4) {
      const right = Math.min(left + 4, width);
      let found = 0;
      if (at > end) at = end;
      for (let x = left; x < right; x++) {
        for (let y = top; y < bottom; y++) {
          const i = (y + 1) * step + x + 1;
          if (SIGNIFICANT[i]) continue;
          let beside = SIGNIFICANT[i - 1] | SIGNIFICANT[i + 1];
          beside |= SIGNIFICANT[i - step - 1] | SIGNIFICANT[i - step] | SIGNIFICANT[i - step + 1];
          if (!causal || y !== top + 3) {
            beside |= SIGNIFICANT[i + step - 1] | SIGNIFICANT[i + step] | SIGNIFICANT[i + step + 1];
          }
          if (beside === 0) continue;
          if (peek(CODES, at) & 1) {
            SIGNIFICANT[i] = 2;
            found |= 1 << (((x - left) << 2) | (y - top));
          }
          at += 1;
        }
      }
      for (; found !== 0; found &= found - 1) {
        const n = 31 - Math.clz32(found & -found);
        out[place + (top + (n & 3)) * stride + left + (n >> 2)] = peek(CODES, at) & 1 ? -magnitude : magnitude;
        at += 1;
      }
    }
  }
}

// MagRef: one bit-plane more of what the cleanup pass found. T.814 7.5
function refine(end, width, height, plane, out, place, stride) {
  const step = width + 2;
  const half = plane > 0 ? 1 << (plane - 1) : 0;
  let at = 0;
  for (let top = 0; top < height; top += 4) {
    const bottom = Math.min(top + 4, height);
    for (let x = 0; x < width; x++) {
      if (at > end) at = end;
      for (let y = top; y < bottom; y++) {
        if (SIGNIFICANT[(y + 1) * step + x + 1] !== 1) continue;
        // The cleanup pass put half a step here, which is what a one says.
        const change = peek(CODES, at) & 1 ? half : half - (1 << plane);
        const o = place + y * stride + x;
        out[o] += out[o] < 0 ? -change : change;
        at += 1;
      }
    }
  }
}

// Decodes one code-block into `out`, zeros so far, at `place`. Its cleanup pass, bytes `at` to `at` + `length`, is of
// bit-plane `plane`, and `zeroPlanes` are above. `refinements` are 0 to 2 further passes, in bytes `refined` to
// `refined` + `refinedLength` of `more`. What is wrong with it, "" for nothing.
export function decodeBlock(
  bytes, at, length, more, refined, refinedLength, refinements, zeroPlanes, plane, causal, width, height, out, place, stride,
) {
  if (length < 2 || length > MOST_CLEANUP) return `a cleanup pass of ${length} bytes`;
  const end = at + length;
  const suffix = (bytes[end - 1] << 4) | (bytes[end - 2] & 15);
  if (suffix < 2 || suffix > length || suffix > MOST_SUFFIX) return `${suffix} bytes of MEL and VLC in a cleanup pass of ${length}`;
  MEL.start(bytes, end - suffix, end - 1);
  const nibble = bytes[end - 2] >> 4;
  const held = (nibble & 7) === 7 ? 3 : 4;
  const codes = unstuffBackward(bytes, end - 3, end - suffix, CODES, nibble, held, nibble > 8);
  readQuads(codes, (width + 1) >> 1, (height + 1) >> 1);
  const magnitudes = unstuffForward(bytes, at, end - suffix, MAGNITUDES, -1);
  if (!readMagnitudes(magnitudes, width, height, plane, zeroPlanes + 2, out, place, stride)) {
    return "magnitudes above the bit-planes of the code-block";
  }
  if (refinements === 0 || refinedLength === 0) return "";
  if (refinedLength > MOST_REFINEMENT) return `refinements of ${refinedLength} bytes`;
  markSignificant(width, height, out, place, stride);
  const propagated = unstuffForward(more, refined, refined + refinedLength, CODES, 0);
  propagate(propagated, width, height, plane - 1, causal, out, place, stride);
  if (refinements > 1) {
    const bits = unstuffBackward(more, refined + refinedLength - 1, refined, CODES, 0, 0, true);
    refine(bits, width, height, plane - 1, out, place, stride);
  }
  return "";
}
