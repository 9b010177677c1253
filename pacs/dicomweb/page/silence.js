// How long the server may say nothing. A slow line is waited for; of a server that hangs no byte would ever come, and
// fetch() would wait for it for ever.

const PATIENCE = 30; // seconds in which no byte comes of anything that is asked for
const LONGEST = 120; // of one request, while others get bytes: theirs may stand before its own in the line
const SECOND = 1000; // milliseconds

export class Silence extends Error {
  constructor() {
    super("the server does not answer");
  }
}

const waiting = new Set(); // { seconds, fail } of whoever waits for a byte
let quiet = 0; // seconds since one came
let clock = 0;

// Seconds are counted, not read from a clock: while the computer sleeps, or the page is frozen, nobody waits.
function tick() {
  quiet += 1;
  for (const one of waiting) {
    one.seconds += 1;
    if (one.seconds >= (quiet >= PATIENCE ? PATIENCE : LONGEST)) one.fail();
  }
}

function leave(one) {
  waiting.delete(one);
  if (waiting.size) return;
  clearInterval(clock);
  clock = 0;
}

/** What `promise` brings from the server. Where nothing comes for too long, a Silence is thrown, and `abort` gets it. */
export function heard(promise, abort) {
  return new Promise((resolve, reject) => {
    const fail = () => {
      const silence = new Silence();
      leave(one);
      reject(silence);
      abort(silence);
    };
    const one = { seconds: 0, fail };
    if (!clock) [quiet, clock] = [0, setInterval(tick, SECOND)];
    waiting.add(one);
    promise.then(() => { quiet = 0; }, () => {}).finally(() => leave(one));
    promise.then(resolve, reject);
  });
}

/** A response whose body is missed when it stays away. Nothing is read ahead: who does not read waits for nothing. */
export function watched(response, abort) {
  if (!response.body) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream({
    async pull(controller) {
      const { done, value } = await heard(reader.read(), abort);
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  const { status, headers } = response;
  return new Response(body, { status, headers });
}
