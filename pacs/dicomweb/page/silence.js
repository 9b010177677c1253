// How long the server may say nothing. A slow line is waited for; of a server that hangs no byte would ever come, and
// fetch() would wait for it for ever.

const PATIENCE = 30; // seconds in which no byte comes of a request, nor of those before it
const LONGEST = 120; // of one request, while bytes come of those before it, which may be first in the line
const SECOND = 1000; // milliseconds

export class Silence extends Error {
  constructor() {
    super("the server does not answer");
  }
}

const waiting = new Set(); // { order, seconds, quiet, fail } of whoever waits for a byte
let clock = 0;
let requests = 0;

// Seconds are counted, not read from a clock: while the computer sleeps, or the page is frozen, nobody waits.
function tick() {
  for (const one of waiting) {
    one.seconds += 1;
    one.quiet += 1;
    if (one.quiet >= PATIENCE || one.seconds >= LONGEST) one.fail();
  }
}

function leave(one) {
  waiting.delete(one);
  if (waiting.size) return;
  clearInterval(clock);
  clock = 0;
}

/** The patience with one request. When it ends, a Silence is thrown, and `abort` gets it. */
export class Patience {
  #order = ++requests;
  #abort;

  constructor(abort) {
    this.#abort = abort;
  }

  /** What `promise` brings from the server. */
  heard(promise) {
    return new Promise((resolve, reject) => {
      const fail = () => {
        const silence = new Silence();
        leave(one);
        reject(silence);
        this.#abort(silence);
      };
      const one = { order: this.#order, seconds: 0, quiet: 0, fail };
      clock ||= setInterval(tick, SECOND);
      waiting.add(one);
      promise.then(() => {
        for (const other of waiting) if (other.order > this.#order) other.quiet = 0;
      }, () => {}).finally(() => leave(one));
      promise.then(resolve, reject);
    });
  }

  /** A response whose body is missed when it stays away. Nothing is read ahead: who does not read waits for nothing. */
  watched(response) {
    if (!response.body) return response;
    const reader = response.body.getReader();
    const pull = async (controller) => {
      const { done, value } = await this.heard(reader.read());
      if (done) controller.close();
      else controller.enqueue(value);
    };
    const body = new ReadableStream({ pull, cancel: (reason) => reader.cancel(reason) }, { highWaterMark: 0 });
    const { status, headers } = response;
    return new Response(body, { status, headers });
  }
}
