// Decoders in workers. What is looked at is decoded first, and what nobody looks at any more not at all.

const MOST = 2;

export class Decoding {
  #free = [];
  #queue = [];
  #running = new Map(); // id -> { worker, resolve, reject }
  #count = 0;
  #workers = 0;

  /**
   * The samples of what is to be decoded (see `Frame.source`): { columns, rows, planes, low, high, precision, signed,
   * size }; null when nobody `wants` them any more before their turn comes. Throws for what cannot be decoded.
   */
  decode(source, wants) {
    return new Promise((resolve, reject) => {
      this.#queue.push({ source, wants, resolve, reject });
      this.#next();
    });
  }

  #next() {
    while (this.#queue.length) {
      const index = this.#queue.length - 1; // the newest is what the reader looks at
      if (!this.#queue[index].wants()) {
        this.#queue.pop().resolve(null);
        continue;
      }
      const worker = this.#free.pop() ?? this.#start();
      if (!worker) return;
      const { source, resolve, reject } = this.#queue.pop();
      const id = ++this.#count;
      this.#running.set(id, { worker, resolve, reject });
      worker.postMessage({ id, ...source }, [source.bytes.buffer]);
    }
  }

  #start() {
    if (this.#workers >= Math.max(1, Math.min(MOST, (navigator.hardwareConcurrency || 2) - 1))) return null;
    this.#workers += 1;
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", ({ data: { id, samples, error } }) => {
      const { resolve, reject } = this.#running.get(id);
      this.#running.delete(id);
      this.#free.push(worker);
      if (samples) resolve(samples);
      else reject(new Error(error));
      this.#next();
    });
    // A worker that cannot start, or dies, takes its frame along, not the page.
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#workers -= 1;
      for (const [id, { worker: other, reject }] of this.#running) {
        if (other !== worker) continue;
        this.#running.delete(id);
        reject(new Error(event.message || "the decoder does not start"));
      }
      this.#free = this.#free.filter((other) => other !== worker);
      worker.terminate();
      this.#next();
    });
    return worker;
  }
}
