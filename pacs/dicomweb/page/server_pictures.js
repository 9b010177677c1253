// Pictures of frames that the page does not paint itself (palettes, look-up tables, lossy JPEG, 1 bit, …): the server's
// own, 8 bits in a window, by /rendered. The small one at once, the full one when the stack rests.

import { answer } from "./dicom.js";
import { pause } from "./link.js";

const REST = 60; // milliseconds
const SMALL = 128;
const KEPT = 600; // small pictures
const AHEAD = 150; // of them, to each side

export class ServerPictures {
  #small = new Map(); // address -> promise of a bitmap, or of null
  #asking = new AbortController();

  /** `put(frame, bitmap, name)` shows a picture, `fail(frame, error)` says that there is none. */
  constructor(put, fail) {
    Object.assign(this, { put, fail });
  }

  /** Nobody looks any more. */
  leave() {
    this.#asking.abort();
  }

  close() {
    this.leave();
    for (const picture of this.#small.values()) picture.then((bitmap) => bitmap?.close());
    this.#small.clear();
  }

  /** Show `frame` in `window` (null: the header's), for a stage of `fit` pixels; then get the small ones of `others`. */
  async look(frame, window, fit, others) {
    this.leave();
    const { signal } = (this.#asking = new AbortController());
    const query = window ? `&window=${window.center},${window.width},${window.shape.toLowerCase()}` : "";
    let full = false;
    this.#smallOf(frame, query).then((bitmap) => {
      if (bitmap && !full && !signal.aborted) this.put(frame, bitmap, `preview, ${bitmap.width} × ${bitmap.height}`);
    });
    try {
      await pause(REST, signal);
      const larger = frame.columns > fit[0] && frame.rows > fit[1];
      const picture = await load(`${frame.url}/rendered?quality=92${larger ? `&viewport=${fit.join(",")}` : ""}${query}`, signal);
      full = true;
      if (!signal.aborted) this.put(frame, picture, "JPEG of the server");
      picture.close();
      for (const other of others(2 * AHEAD)) {
        if (signal.aborted) return;
        if (other.byServer) await this.#smallOf(other, query);
      }
    } catch (error) {
      if (!signal.aborted) this.fail(frame, error);
    }
  }

  #smallOf(frame, query) {
    const scale = Math.min(1, SMALL / Math.max(frame.columns, frame.rows, 1));
    const size = [frame.columns, frame.rows].map((side) => Math.max(1, Math.round(side * scale)));
    const address = `${frame.url}/rendered?viewport=${size.join(",")}${query}`;
    if (!this.#small.has(address)) {
      this.#small.set(address, load(address).catch(() => null));
      while (this.#small.size > KEPT) {
        const [oldest, picture] = this.#small.entries().next().value;
        picture.then((bitmap) => bitmap?.close());
        this.#small.delete(oldest);
      }
    }
    return this.#small.get(address);
  }
}

async function load(url, signal) {
  const response = await answer(url, { headers: { Accept: "image/jpeg" }, signal });
  return createImageBitmap(await response.blob(), { colorSpaceConversion: "none" });
}
