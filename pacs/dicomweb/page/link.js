// Requests for parts of codestreams, and how fast the line has been so far.

import { Refused, answer } from "./dicom.js";
import { Silence } from "./silence.js";

const PATIENCE = 5; // tries without a new byte
const FIRST_PAUSE = 250; // milliseconds
const KNOWN = 4096; // bytes after which the rate is worth something
const MEMORY = 3000; // milliseconds of receiving after which what was before counts half

export const pause = (milliseconds, signal) => new Promise((resolve, reject) => {
  signal?.throwIfAborted();
  const stop = () => { clearTimeout(timer); reject(signal.reason); };
  const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, milliseconds);
  signal?.addEventListener("abort", stop, { once: true });
});

export class Link {
  #bytes = 0;
  #busy = 0; // milliseconds in which somebody waited for bytes
  #waiting = 0;
  #since = 0;

  /** The pieces of a body as they arrive. The first is not counted: what the server took to make it is no rate. */
  async *chunks(body) {
    const reader = body.getReader();
    try {
      for (let first = true; ; first = false) {
        if (!first && this.#waiting++ === 0) this.#since = performance.now();
        const { done, value } = await reader.read().finally(() => {
          if (!first && --this.#waiting === 0) this.#busy += performance.now() - this.#since;
        });
        if (done) return;
        if (!first) this.#bytes += value.length;
        if (this.#busy > MEMORY) [this.#bytes, this.#busy] = [this.#bytes / 2, this.#busy / 2];
        yield value;
      }
    } finally {
      reader.cancel().catch(() => {}); // when the reader of this stopped early
    }
  }

  /** How long so many bytes would take; 0 as long as nothing is known. */
  seconds(bytes) {
    return this.#bytes < KNOWN ? 0 : (bytes * this.#busy) / this.#bytes / 1000;
  }

  /**
   * The missing bytes of a codestream up to `end()`, over as many requests as it takes: after a break it goes on behind
   * the last byte. `arrived` is called at each level's end. Throws what the server refuses, a codestream of more than
   * `most` bytes, and when the line is dead: of silence at once, which has lasted long enough.
   */
  async fetch(codestream, end, signal, arrived, most = Infinity) {
    let failures = 0;
    while (codestream.length < end()) {
      const before = codestream.length;
      try {
        await this.#range(codestream, end(), signal, arrived, most);
        failures = 0;
      } catch (error) {
        if (codestream.length > before) failures = 0;
        if (signal.aborted || error instanceof Refused || error instanceof Silence || ++failures >= PATIENCE) throw error;
        await pause(FIRST_PAUSE * 2 ** (failures - 1), signal);
      }
    }
  }

  async #range(codestream, end, signal, arrived, most) {
    const from = codestream.length;
    const response = await answer(codestream.url, {
      headers: { Accept: codestream.accept, Range: `bytes=${from}-${end === Infinity ? "" : end - 1}` }, signal,
    });
    const etag = (response.headers.get("ETag") ?? "").replaceAll('"', "");
    const range = /bytes (\d+)-(\d+)\/(\d+)/.exec(response.headers.get("Content-Range") ?? "");
    const total = range ? Number(range[3]) : Number(response.headers.get("Content-Length"));
    if (total > most) {
      response.body.cancel().catch(() => {});
      throw new Refused("it is too long to be of use");
    }
    if (range && Number(range[1]) !== from) throw new Error("other bytes came than were asked for");
    if (!range || (codestream.length && codestream.etag && etag !== codestream.etag)) {
      codestream.shorten(); // the whole comes, or another codestream: nothing of two is put together
      if (range) throw new Error("the frame has changed");
    }
    codestream.etag = etag;
    let position = range ? from : 0;
    for await (const chunk of this.chunks(response.body)) {
      const level = codestream.level;
      // The stream of the series may have brought some of it since these bytes were asked for.
      const news = chunk.subarray(Math.max(0, codestream.length - position));
      if (news.length) codestream.append(news, position + chunk.length - news.length, total);
      position += chunk.length;
      if (codestream.level > level) arrived();
    }
  }
}
