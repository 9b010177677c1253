// A series in one response: the first rung of every frame, from one of them outwards (docs/progressive.md).

import { Refused, answer } from "./dicom.js";
import { pause } from "./link.js";
import { Silence } from "./silence.js";

const PATIENCE = 6; // tries without a new part
const FIRST_PAUSE = 250; // milliseconds
const LONGEST_LINE = 4096;

/** Bytes from a network, asked for by line or by count. */
class Arriving {
  #chunks;
  #held = [];
  #length = 0;

  constructor(chunks) {
    this.#chunks = chunks;
  }

  /** Exactly `count` bytes. Throws when the connection ends before them. */
  async take(count) {
    while (this.#length < count) {
      const { done, value } = await this.#chunks.next();
      if (done) throw new Error("the connection ended in the middle of a part");
      this.#held.push(value);
      this.#length += value.length;
    }
    const taken = new Uint8Array(count);
    let position = 0;
    while (position < count) {
      const part = this.#held[0].subarray(0, count - position);
      taken.set(part, position);
      position += part.length;
      if (part.length === this.#held[0].length) this.#held.shift();
      else this.#held[0] = this.#held[0].subarray(part.length);
    }
    this.#length -= count;
    return taken;
  }

  /** A line without its end (CR LF). */
  async line() {
    const bytes = [];
    for (;;) {
      const [byte] = await this.take(1);
      if (byte === 10) return String.fromCharCode(...bytes).replace(/\r$/, "");
      bytes.push(byte);
      if (bytes.length > LONGEST_LINE) throw new Error("a header line is too long");
    }
  }
}

/** The parts of a response, each once it is here whole. Lengths come from Content-Range: no data is searched. */
async function* partsOf(response, link) {
  const boundary = /boundary="?([^";]+)"?/.exec(response.headers.get("Content-Type") ?? "")?.[1];
  if (!boundary) throw new Error("the answer is not in parts");
  const chunks = link.chunks(response.body);
  const arriving = new Arriving(chunks);
  try {
    for (;;) {
      let line = await arriving.line();
      if (line === "") line = await arriving.line();
      if (line === `--${boundary}--`) {
        while (!(await chunks.next()).done); // to its end, so that the connection serves again
        return;
      }
      if (line !== `--${boundary}`) throw new Error("a part does not begin with the boundary");
      const headers = new Map();
      while ((line = await arriving.line()) !== "") {
        const [name, ...value] = line.split(":");
        headers.set(name.toLowerCase(), value.join(":").trim());
      }
      const range = /bytes (\d+)-(\d+)\/(\d+)/.exec(headers.get("content-range") ?? "");
      if (!range) throw new Error("a part does not say which bytes it is");
      const [from, to, total] = range.slice(1).map(Number);
      yield { location: headers.get("content-location"), data: await arriving.take(to - from + 1), from, total };
    }
  } finally {
    chunks.return(); // whoever stops early wants no more of the response
  }
}

/**
 * The parts of the stream of `series` behind the first `after`, over as many connections as it takes: after a break it
 * goes on behind the last whole part. A silent server ends it with an error, and a series that has changed meanwhile: its
 * parts would no longer fit.
 */
export async function* streamOf(series, { rungs, first, after, state, link, signal }) {
  let failures = 0;
  for (;;) {
    const query = new URLSearchParams({ rungs, first, ...(after ? { after, state } : {}) });
    try {
      const response = await answer(`${series}/stream?${query}`, { headers: { Accept: "multipart/related" }, signal });
      for await (const part of partsOf(response, link)) {
        [after, failures] = [after + 1, 0];
        yield part;
      }
      return;
    } catch (error) {
      if (signal.aborted || error instanceof Refused || error instanceof Silence || ++failures >= PATIENCE) throw error;
      await pause(FIRST_PAUSE * 2 ** (failures - 1), signal);
    }
  }
}
