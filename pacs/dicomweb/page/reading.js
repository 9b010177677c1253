// Which rungs of which frames are asked for, in which order (docs/decisions/plans-for-links.md).
//
// The first rung of every frame comes by one stream of the series. Of the frame that is looked at comes its first rung
// at once, and the rest of the same codestream when the stack rests on it; over a slow line a lossy form in between.
// Then its neighbours are completed, one at a time, until the reader moves on.

import { outwards } from "./frames.js";
import { pause } from "./link.js";
import { streamOf } from "./stream.js";

const FIRST_RUNG = "pixels:128";
const UNKNOWN = 16384; // bytes that are asked for of a codestream whose levels are not known
const REST = 100; // milliseconds without a move
const AT_ONCE = 3; // first rungs that are asked for by themselves while the stack moves
const NEAR = 8; // places from where the stream is, which it will have brought soon
const PATIENCE = 1; // seconds for the rest of a frame, before a lossy form is asked for
const WORTH = 5; // times that a lossy form is smaller, or more
const MEMORY = 256 << 20;
const FULL = 0.8 * MEMORY;
const COUNTED = 64; // parts of the stream after which memory is counted

export class Reading {
  frames = [];
  at = 0;
  #series;
  #state = "";
  #link;
  #stage;
  #closed = new AbortController();
  #moved = new AbortController();
  #firsts = new Map(); // frame -> promise of its first rung
  #stream = null; // { stop, first, last, begun, ended } of the one that runs
  #eyes = 0; // requests for what is looked at
  #aside = [];
  #used = 0;

  constructor(series, { link, stage }) {
    this.#series = series;
    this.#link = link;
    this.#stage = stage;
  }

  /** The frames of the series as it is now. */
  set(frames, state) {
    this.frames = frames;
    this.#state = state;
    this.#stream?.stop.abort();
    this.#stream = null;
  }

  close() {
    this.#closed.abort();
    this.#moved.abort();
    this.#stream?.stop.abort();
    this.frames = [];
  }

  /** The reader is at a place now, and may stay there. */
  look(at) {
    this.at = at;
    this.#moved.abort();
    const { signal } = (this.#moved = new AbortController());
    const frame = this.frames[at];
    this.#read(frame, signal).catch((error) => {
      if (!signal.aborted && !this.#closed.signal.aborted) this.#stage.failed(frame, error);
    });
  }

  async #read(frame, signal) {
    this.#follow(this.at);
    if (!frame.byServer) {
      if (this.#firsts.size >= AT_ONCE) await pause(REST, signal);
      await this.#first(frame);
    }
    await pause(REST, signal);
    await this.#complete(frame, signal, true);
    await this.#others(signal);
  }

  // --- the stream

  /** Have the stream bring what is around a place, unless it soon will. */
  #follow(at) {
    const frame = this.frames[at], stream = this.#stream;
    if (stream && (!lacking(frame) || Math.abs(at - stream.first) - Math.abs(stream.last - stream.first) <= NEAR)) return;
    const wanted = this.frames.filter(lacking).length;
    if (wanted < 2) return;
    stream?.stop.abort();
    const stop = new AbortController();
    const begun = {};
    begun.promise = new Promise((resolve) => { begun.resolve = resolve; });
    this.#stream = { stop, first: at, last: at, begun };
    this.#stream.ended = this.#run(this.#stream, wanted).catch(() => {}).finally(() => {
      begun.resolve();
      stop.abort();
      if (this.#stream?.stop === stop) this.#stream = null;
    });
  }

  async #run(stream, wanted) {
    const places = new Map(this.frames.map((frame, place) => [frame.url, place]));
    const { signal } = stream.stop;
    const parts = streamOf(this.#series, { rungs: FIRST_RUNG, first: stream.first + 1, state: this.#state, link: this.#link, signal });
    let count = 0;
    for await (const { location, data, from, total } of parts) {
      const place = places.get(`${this.#series}/${location}`);
      const frame = this.frames[place];
      stream.last = place ?? stream.last;
      if (frame && lacking(frame) && from === frame.stored.length) {
        frame.stored.append(data, from, total);
        if (frame.hasFirst) wanted -= 1;
        this.#stage.improved(frame);
      }
      stream.begun.resolve();
      if (++count % COUNTED === 0) this.trim();
      if (wanted <= 0 || this.#used > FULL) return;
      // What is looked at has the line to itself: this response waits in its connection, and is not lost.
      while (this.#eyes && !signal.aborted) await new Promise((resolve) => { this.#aside.push(resolve); });
    }
  }

  // --- one frame

  async #first(frame) {
    if (frame.hasFirst) return;
    const stream = this.#stream;
    if (stream && this.frames[stream.first] === frame) await stream.begun.promise;
    if (frame.hasFirst || frame.byServer) return;
    if (!this.#firsts.has(frame)) {
      const { stored } = frame;
      const end = () => (stored.ends ? stored.ends[frame.first] : Math.min(stored.length + UNKNOWN, stored.total ?? Infinity));
      const coming = this.#link.fetch(stored, end, this.#closed.signal, () => this.#stage.improved(frame));
      this.#firsts.set(frame, coming.finally(() => this.#firsts.delete(frame)));
    }
    await this.#firsts.get(frame);
  }

  /** All of a frame that the stage needs. */
  async #complete(frame, signal, looked = false) {
    if (frame.byServer) return;
    await this.#first(frame);
    signal.throwIfAborted();
    const { stored } = frame;
    const end = () => stored.ends[this.#stage.needed(frame)];
    if (stored.length >= end()) return;
    if (looked) this.#eyes += 1;
    try {
      await this.#readable(frame, signal);
      await this.#link.fetch(stored, end, signal, () => this.#stage.improved(frame));
    } finally {
      if (looked && --this.#eyes === 0) for (const resolve of this.#aside.splice(0)) resolve();
      this.trim();
    }
  }

  /** A lossy form, where all of the frame would take long. */
  async #readable(frame, signal) {
    const { stored, lossy } = frame;
    const missing = stored.ends[this.#stage.needed(frame)] - stored.length;
    if (!frame.hasLossy || lossy.whole || missing * WORTH < stored.total || this.#link.seconds(missing) < PATIENCE) return;
    try {
      await this.#link.fetch(lossy, () => lossy.total ?? Infinity, signal, () => {});
      this.#stage.improved(frame);
    } catch (error) {
      if (!(error.status >= 400 && error.status < 500)) throw error;
      frame.hasLossy = false; // of labels and doses nothing lossy is made
    }
  }

  // --- the others

  async #others(signal) {
    const gone = new Promise((resolve) => { signal.addEventListener("abort", resolve, { once: true }); });
    await Promise.race([this.#stream?.ended, gone]);
    const steps = [
      (frame) => this.#first(frame),
      (frame) => this.#readable(frame, signal),
      (frame) => this.#complete(frame, signal),
    ];
    for (const step of steps) {
      for (const place of outwards(this.frames.length, this.at)) {
        signal.throwIfAborted();
        if (this.#used > FULL) return;
        const frame = this.frames[place];
        // What fails here is told to who looks at it.
        if (frame && !frame.byServer) await step(frame).catch(() => signal.throwIfAborted());
      }
      this.trim();
    }
  }

  // --- memory

  /** Give memory back where too much is held: of the farthest frames first, and first what costs no request. */
  trim() {
    const { frames, at } = this;
    this.#used = frames.reduce((sum, frame) => sum + frame.size, 0);
    const ways = [(frame) => frame.decoded.clear(), (frame) => frame.forget(false), (frame) => frame.forget(true)];
    for (const way of ways) {
      if (this.#used <= MEMORY) return;
      let [low, high] = [0, frames.length - 1];
      while (low < high && this.#used > FULL) {
        const frame = frames[at - low >= high - at ? low++ : high--];
        if (frame === frames[at]) continue;
        const before = frame.size;
        way(frame);
        this.#used += frame.size - before;
      }
    }
  }
}

/** Whether the stream of the series has something of a frame that is not here. */
const lacking = (frame) => frame.streamed && !frame.byServer && !frame.hasFirst;
