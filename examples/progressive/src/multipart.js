// multipart/related as it arrives. Lengths come from Content-Range, so that no data is searched for a boundary.

const SILENCE = 15_000; // milliseconds without a byte, after which a connection is dead: the address may have changed

/** Bytes from a network, asked for by line or by count. */
class Arriving {
  #reader;
  #chunks = [];
  #held = 0;
  received = 0;

  constructor(body) {
    this.#reader = body.getReader();
  }

  /** Exactly `count` bytes. Throws when the connection ends before them. */
  async take(count) {
    while (this.#held < count) await this.#more();
    const taken = new Uint8Array(count);
    let position = 0;
    while (position < count) {
      const chunk = this.#chunks[0];
      const part = chunk.subarray(0, count - position);
      taken.set(part, position);
      position += part.length;
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part.length);
    }
    this.#held -= count;
    return taken;
  }

  /** A line without its end (CR LF). */
  async line() {
    const bytes = [];
    for (;;) {
      const [byte] = await this.take(1);
      if (byte === 10) return String.fromCharCode(...bytes).replace(/\r$/, "");
      bytes.push(byte);
      if (bytes.length > 4096) throw new Error("a header line is too long");
    }
  }

  async #more() {
    const silent = setTimeout(() => this.#reader.cancel().catch(() => {}), SILENCE);
    const { done, value } = await this.#reader.read().finally(() => clearTimeout(silent));
    if (done) throw new Error("the connection ended in the middle of a part");
    this.#chunks.push(value);
    this.#held += value.length;
    this.received += value.length;
  }
}

/**
 * The parts of a response: `{ headers, data, received }`, each once it is here whole.
 * `received` counts the bytes of the body so far.
 */
export async function* partsOf(response) {
  const boundary = /boundary="?([^";]+)"?/.exec(response.headers.get("Content-Type") ?? "")?.[1];
  if (!boundary) throw new Error("the answer is not in parts");
  const arriving = new Arriving(response.body);
  for (;;) {
    let line = await arriving.line();
    if (line === "") line = await arriving.line();
    if (line === `--${boundary}--`) return;
    if (line !== `--${boundary}`) throw new Error("a part does not begin with the boundary");
    const headers = new Map();
    while ((line = await arriving.line()) !== "") {
      const [name, ...value] = line.split(":");
      headers.set(name.toLowerCase(), value.join(":").trim());
    }
    const range = /bytes (\d+)-(\d+)\/(\d+)/.exec(headers.get("content-range") ?? "");
    if (!range) throw new Error("a part does not say which bytes it is");
    const [from, to, total] = range.slice(1).map(Number);
    const data = await arriving.take(to - from + 1);
    yield { headers, data, from, total, received: arriving.received };
  }
}
