// Which rungs of which frames are asked for, in which order (docs/decisions/plans-for-links.md).
//
// Of the frame that is looked at comes its first rung at once, and the rest of the same codestream when the stack rests on
// it; over a slow line a lossy form in between. The first rung of every frame comes by one stream of the series, as soon as
// the line is free, or the reader moves. Then the neighbours are completed, one at a time, until the reader moves on; over
// a slow line all of them are made readable before, by a second stream.

import { Refused } from "./dicom.js";
import { DECIBELS, outwards } from "./frames.js";
import { pause } from "./link.js";
import { Silence } from "./silence.js";
import { streamOf } from "./stream.js";

const FIRST_RUNG = "pixels:128", READABLE = `quality:${DECIBELS}`;
const UNKNOWN = 16384; // bytes that are asked for of a codestream whose levels are not known
const REST = 100; // milliseconds without a move
const REST_MOVING = 250; // of a reader who has moved just before
const MOVING = 500; // milliseconds that "just before" is
const HEAD_START = 1000; // milliseconds for what is looked at, before a stream shares the line
const AT_ONCE = 3; // first rungs that are asked for by themselves while the stack moves
const NEAR = 8; // places from where the stream is, which it will have brought soon
const PATIENCE = 1; // seconds for the rest of a frame, before a lossy form is asked for
const PATIENCE_FOR_ALL = 5; // seconds for the rest of the stack
const WORTH = 0.5; // of the bytes that are missing: a lossy form is worth so many
const SHORT = 0.2; // of a frame's bytes: so little is missing that no lossy form is
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
  #stream = null; // { rung, stop, first, last, begun, ended } of the one that runs
  #looked = -Infinity; // when
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

  /** The reader is at a place now, and may stay there; or still is, where the stage has another size. */
  look(at, resized = false) {
    this.at = at;
    this.#moved.abort();
    const { signal } = (this.#moved = new AbortController());
    const frame = this.frames[at];
    const now = performance.now();
    const moving = !resized && now - this.#looked < MOVING;
    this.#looked = now;
    this.#read(frame, moving, signal).catch((error) => {
      if (!signal.aborted && !this.#closed.signal.aborted) this.#stage.failed(frame, error);
    });
  }

  async #read(frame, moving, signal) {
    const rest = moving ? REST_MOVING : REST;
    const follow = () => this.#follow(this.at, FIRST_RUNG);
    if (moving || this.#stream) follow();
    else pause(HEAD_START, signal).then(follow, () => {});
    if (!frame.byServer) {
      if (this.#firsts.size >= AT_ONCE) await pause(rest, signal);
      await this.#first(frame);
    }
    await pause(rest, signal);
    await this.#complete(frame, signal, true);
    follow();
    await this.#others(signal);
  }

  // --- the streams

  /** Whether a stream has something of a frame that is not here, and is worth having. */
  #lacks(frame, rung) {
    if (frame.byServer) return false;
    return rung === FIRST_RUNG ? frame.streamed && !frame.hasFirst : this.#wantsLossy(frame);
  }

  /** Have a stream bring a rung of what is around a place, unless one runs that soon will. */
  #follow(at, rung) {
    const running = this.#stream;
    if (running) {
      const far = Math.abs(at - running.first) - Math.abs(running.last - running.first) > NEAR;
      if (!far || !this.#lacks(this.frames[at], running.rung)) return;
    }
    const wanted = this.frames.filter((frame) => this.#lacks(frame, rung)).length;
    if (wanted < 2) return;
    running?.stop.abort();
    const begun = {};
    begun.promise = new Promise((resolve, reject) => { Object.assign(begun, { resolve, reject }); });
    begun.promise.catch(() => {}); // mostly nobody waits for it
    const stream = { rung, stop: new AbortController(), first: at, last: at, begun };
    this.#stream = stream;
    stream.ended = this.#run(stream, wanted).catch((error) => {
      if (error instanceof Silence) begun.reject(error); // who waits for the stream has waited long enough
    }).finally(() => {
      begun.resolve();
      stream.stop.abort();
      if (this.#stream === stream) this.#stream = null;
    });
  }

  async #run(stream, wanted) {
    const { rung, first, begun, stop: { signal } } = stream;
    const { frames } = this; // later ones have other places
    const places = new Map(frames.map((frame, place) => [frame.url, place]));
    // The first part is that of the place itself, which mostly is here already.
    let count = this.#lacks(frames[first], rung) ? 0 : 1;
    const parts = streamOf(this.#series, {
      rungs: rung, first: first + 1, after: count, state: this.#state, link: this.#link, signal,
    });
    for await (const { location, data, from, total } of parts) {
      if (signal.aborted) return; // what lies in the buffer still comes
      const place = places.get(`${this.#series}/${location}`);
      const frame = frames[place];
      stream.last = place ?? stream.last;
      if (frame && this.#lacks(frame, rung)) {
        if (rung === READABLE && total > this.#missing(frame) * WORTH) return;
        const codestream = rung === FIRST_RUNG ? frame.stored : frame.lossy;
        if (from === codestream.length) codestream.append(data, from, total);
        if (!this.#lacks(frame, rung)) wanted -= 1;
        this.#stage.improved(frame);
      }
      begun.resolve();
      if (++count % COUNTED === 0) this.trim();
      // What else would come is here already; the last part needs no end, which would cost the connection.
      if (this.#used > FULL || (wanted <= 0 && count < frames.length)) return;
      // What is looked at has the line to itself: this response waits in its connection, and is not lost.
      while (this.#eyes && !signal.aborted) await new Promise((resolve) => { this.#aside.push(resolve); });
    }
  }

  // --- one frame

  async #first(frame) {
    if (frame.hasFirst) return;
    const stream = this.#stream;
    if (stream?.rung === FIRST_RUNG && this.frames[stream.first] === frame) await stream.begun.promise;
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

  /** Bytes of a frame that the stage needs and that are not here. */
  #missing(frame) {
    const target = this.#stage.needed(frame);
    return target === null ? 0 : Math.max(0, frame.stored.ends[target] - frame.stored.length);
  }

  /** Whether much of a frame is missing, and a lossy form of it is not here. */
  #wantsLossy(frame) {
    const target = this.#stage.needed(frame);
    return frame.isLossyMade && target !== null && !frame.hasLossy(target) && this.#missing(frame) > frame.stored.ends[target] * SHORT;
  }

  /** A lossy form, where all of the frame would take long. */
  async #readable(frame, signal) {
    const missing = this.#missing(frame);
    if (!this.#wantsLossy(frame) || this.#link.seconds(missing) < PATIENCE) return;
    const { lossy } = frame;
    const target = this.#stage.needed(frame);
    const whole = target === frame.stored.finest;
    const end = () => {
      if (whole) return lossy.total ?? Infinity;
      if (!lossy.ends) return Math.min(lossy.length + UNKNOWN, lossy.total ?? Infinity);
      const found = lossy.ends[frame.lossyLevel(target)];
      if (found > missing * WORTH) throw new Refused("it is too long to be of use");
      return found;
    };
    try {
      await this.#link.fetch(lossy, end, signal, () => this.#stage.improved(frame), whole ? missing * WORTH : Infinity);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      frame.isLossyMade = false; // of labels and doses nothing lossy is made, and of noise nothing short
    }
  }

  // --- the others

  async #others(signal) {
    const gone = new Promise((resolve) => { signal.addEventListener("abort", resolve, { once: true }); });
    const streamed = async () => {
      while (this.#stream && !signal.aborted) await Promise.race([this.#stream.ended, gone]);
      signal.throwIfAborted();
    };
    await streamed();
    await this.#each((frame) => this.#first(frame), signal);
    const missing = this.frames.reduce((sum, frame) => sum + (frame.byServer ? 0 : this.#missing(frame)), 0);
    if (this.#link.seconds(missing) > PATIENCE_FOR_ALL) this.#follow(this.at, READABLE);
    await streamed();
    await this.#each((frame) => this.#complete(frame, signal), signal);
  }

  /** Take a step with each frame, from the one that is looked at outwards. */
  async #each(step, signal) {
    for (const place of outwards(this.frames.length, this.at)) {
      signal.throwIfAborted();
      if (this.#used > FULL) return;
      const frame = this.frames[place];
      // What fails here is told to who looks at it.
      if (frame && !frame.byServer) await step(frame).catch(() => signal.throwIfAborted());
    }
    this.trim();
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
