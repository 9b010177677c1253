// Pictures of frames that the page does not paint itself (palettes, lossy JPEG, 1 bit, …): the server's own, 8 bits in a
// window, by /rendered. The small one at once, the full one when the stack rests; then those of the frames around it.

import { answer } from "./dicom.js";
import { pause } from "./link.js";

const REST = 60; // milliseconds
const SMALL = 128;
const AHEAD = 300; // frames around the one that is looked at
const MEMORY = 96 << 20; // bytes of pictures
const PIXEL = 4; // bytes

export class ServerPictures {
  #kept = new Map(); // address -> bitmap; the one used last stands last
  #size = 0;
  #asking = new AbortController();

  /** `put(frame, bitmap, name, window)` shows a picture, `fail(frame, error)` says that there is none. */
  constructor(put, fail) {
    Object.assign(this, { put, fail });
  }

  /** Nobody looks any more. */
  leave() {
    this.#asking.abort();
  }

  close() {
    this.leave();
    for (const bitmap of this.#kept.values()) bitmap.close();
    this.#kept.clear();
    this.#size = 0;
  }

  /**
   * Show `frame` in `window` (null: the header's) on a stage of `fit` pixels, the full one alone if it is shown `again`;
   * then get those of `others`.
   */
  async look(frame, window, fit, others, again) {
    this.leave();
    const { signal } = (this.#asking = new AbortController());
    const small = (one) => `${one.url}/rendered?viewport=${smallSize(one)}${queryOf(window)}`;
    const larger = (one) => one.columns > fit[0] && one.rows > fit[1];
    const full = (one) => `${one.url}/rendered?quality=92${larger(one) ? `&viewport=${fit}` : ""}${queryOf(window)}`;
    let done = false;
    const show = (bitmap, name) => {
      if (!signal.aborted && !done) this.put(frame, bitmap, name, window);
    };
    try {
      if (!this.#kept.has(full(frame))) {
        if (!again) {
          const look = this.#picture(small(frame), signal).then((bitmap) => show(bitmap, `preview, ${bitmap.width} × ${bitmap.height}`));
          look.catch(() => {}); // the full one says why
        }
        await pause(REST, signal);
      }
      show(await this.#picture(full(frame), signal), `JPEG of the server${larger(frame) ? ", at screen size" : ""}`);
      done = true;
      for (const address of [small, full]) {
        for (const other of others(AHEAD)) {
          if (other.byServer && this.#size < MEMORY / 2) await this.#picture(address(other), signal).catch(() => signal.throwIfAborted());
        }
      }
    } catch (error) {
      if (!signal.aborted) this.fail(frame, error);
    }
  }

  async #picture(address, signal) {
    let bitmap = this.#kept.get(address);
    if (!bitmap) {
      const response = await answer(address, { headers: { Accept: "image/jpeg" }, signal });
      bitmap = await createImageBitmap(await response.blob(), { colorSpaceConversion: "none" });
      signal.throwIfAborted();
      this.#size += sizeOf(bitmap);
    }
    this.#kept.delete(address);
    this.#kept.set(address, bitmap);
    for (const [oldest, other] of this.#kept) {
      if (this.#size <= MEMORY || other === bitmap) break;
      this.#kept.delete(oldest);
      this.#size -= sizeOf(other);
      other.close();
    }
    return bitmap;
  }
}

const sizeOf = (bitmap) => bitmap.width * bitmap.height * PIXEL;

const queryOf = (window) => (window ? `&window=${window.center},${window.width},${window.shape.toLowerCase()}` : "");

/** Columns and rows of a small picture. */
function smallSize({ columns, rows }) {
  const scale = Math.min(1, SMALL / Math.max(columns, rows, 1));
  return [columns, rows].map((side) => Math.max(1, Math.round(side * scale)));
}
