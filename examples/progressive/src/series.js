// A series in one response, and what is held of each frame while it sharpens.

import { partsOf } from "./multipart.js";

const PATIENCE = 6; // tries without a new part
const FIRST_PAUSE = 250; // milliseconds

/** What a frame is worth now, as Cornerstone3D counts it (Enums.ImageQualityStatus). */
export const SUBRESOLUTION = 6, LOSSY = 7, LOSSLESS = 8;

/** The index: every frame in reading order, with the ends of its resolution levels. */
export async function indexOf(series, signal) {
  const response = await fetch(`${series}/progressive`, { signal, headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`the archive answered ${response.status} to ${series}/progressive`);
  return response.json();
}

/**
 * The parts of the stream of a series, over as many connections as it takes: after a break it goes on behind the last
 * whole part. A series that has changed since `state` ends it with an error, for its parts would no longer fit.
 */
export async function* streamOf(series, { rungs, first, state, signal }) {
  let after = 0, failures = 0, before = 0;
  for (;;) {
    const query = new URLSearchParams({ rungs, ...(first ? { first } : {}), ...(after ? { after, state } : {}) });
    let last = 0;
    try {
      const response = await fetch(`${series}/stream?${query}`, { signal });
      if (response.status >= 400 && response.status < 500) {
        throw Object.assign(new Error(`the archive answered ${response.status} to the stream`), { final: true });
      }
      if (!response.ok) throw new Error(`the archive answered ${response.status}`);
      for await (const part of partsOf(response)) {
        after += 1;
        failures = 0;
        last = part.received;
        yield { ...part, received: before + part.received };
      }
      return;
    } catch (error) {
      if (signal?.aborted || error.final || ++failures >= PATIENCE) throw error;
      before += last;
      await new Promise((resolve) => setTimeout(resolve, FIRST_PAUSE * 2 ** failures));
    }
  }
}

/** The codestreams of one frame as far as they are here: never more is claimed of them than has come. */
export class HeldFrame {
  #streams = new Map();

  constructor(ends) {
    this.ends = ends; // of the stored codestream's resolution levels, coarsest first
    this.best = null; // { bytes, transferSyntax, decodeLevel, quality }
  }

  /** Take in a part. True when what can be shown of the frame is better than before. */
  add(part) {
    const transferSyntax = /transfer-syntax=([\d.]+)/.exec(part.headers.get("content-type"))[1];
    const rung = part.headers.get("rung") ?? "";
    // A quality is a codestream of its own; levels and `lossless` are pieces of one.
    const key = rung.startsWith("quality") ? rung : transferSyntax;
    let held = this.#streams.get(key);
    if (held && part.from + part.data.length <= held.length && part.total === held.bytes.length) return false; // once more
    if (part.from === 0) held = { bytes: new Uint8Array(part.total), length: 0 }; // another codestream, or this one anew
    if (part.from !== held?.length || part.total !== held.bytes.length) throw new Error("a part does not fit the one before");
    held.bytes.set(part.data, part.from);
    held.length += part.data.length;
    this.#streams.set(key, held);
    const whole = held.length === part.total;
    const quality = rung.startsWith("quality") ? (whole ? LOSSY : 0) : whole ? LOSSLESS : SUBRESOLUTION;
    const reached = this.ends.filter((end) => end <= held.length).length;
    if (!quality || (quality === SUBRESOLUTION && !reached) || quality < (this.best?.quality ?? 0)) return false;
    const decodeLevel = quality === SUBRESOLUTION ? this.ends.length - reached : 0;
    this.best = { bytes: held.bytes.subarray(0, held.length), transferSyntax, decodeLevel, quality };
    if (quality === LOSSLESS) this.#streams.clear(); // what was lossy is no longer needed
    return true;
  }
}
