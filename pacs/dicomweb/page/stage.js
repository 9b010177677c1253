// The stage: the best that is held of the frame that is looked at, painted, and named for what it is.

import { OFFLINE, Refused } from "./dicom.js";
import { $ } from "./document.js";
import { DECIBELS } from "./frames.js";
import { ServerPictures } from "./server_pictures.js";
import { defaultWindow, fullWindow, needsServer, shaded } from "./shades.js";

const LOADING = "loading";

export class Stage {
  window = null; // { center, width, shape } that the reader chose; null: the header's
  frame = null; // that is looked at
  painted = null; // { frame, rung, window } on the screen
  #canvas = $("image");
  #context = this.#canvas.getContext("2d");
  #pixels = null;
  #box = null; // of the stage
  #failure = ""; // why no more comes of the frame that is looked at
  #decoding;
  #attributes;
  #others;
  #changed;
  #broken;
  #server = new ServerPictures((...picture) => this.#putBitmap(...picture), (...failure) => this.failed(...failure));

  /**
   * `others(count)` are the frames next to the one looked at, `changed()` is called when the stage shows something else,
   * or when more is held in memory, `broken()` when the line is, and the frame not complete.
   */
  constructor({ attributes, decoding, others, changed, broken }) {
    this.#attributes = attributes;
    this.#decoding = decoding;
    this.#others = others;
    this.#changed = changed;
    this.#broken = broken;
    this.#clear();
  }

  /** Nothing of the patient before stays on the screen, not even for a moment. */
  #clear() {
    this.painted = null;
    this.#canvas.width = this.#canvas.height = 0;
    this.#canvas.hidden = $("nothing").hidden = $("quality").hidden = true;
  }

  /** That no more comes of the frame that is looked at, for which there is a reason, and perhaps a remedy; or that it does. */
  #fail(message, again) {
    this.#failure = message;
    $("look-again").hidden = !again;
  }

  close() {
    this.frame = null;
    this.#fail("", false);
    this.#server.close();
    this.#clear();
  }

  /** Look at a frame of which more is asked for; if not `anew`, again at the same one, in the window that is chosen now. */
  look(frame, anew = true) {
    this.frame = frame;
    if (anew) this.#fail("", false);
    this.#server.leave();
    if (this.painted?.frame !== frame && !this.#failure) {
      this.#say(LOADING);
      $("nothing").hidden = true;
    }
    this.#refresh();
  }

  /** More of a frame is held. */
  improved(frame) {
    if (frame !== this.frame || frame.byServer) return;
    this.#fail("", false);
    this.#refresh();
  }

  /** Why no more of a frame comes. What is on the screen stays, and does not pass for more than it is. */
  failed(frame, error) {
    if (frame !== this.frame) return;
    const message = error instanceof TypeError ? OFFLINE : error.message;
    const broken = !(error instanceof Refused);
    if (broken) this.#broken();
    this.#fail(message, broken);
    if (this.painted?.frame === frame) return this.#say(this.#named(this.painted.name));
    this.#clear();
    $("nothing").textContent = message;
    $("nothing").hidden = false;
    this.#changed();
  }

  /** The window that shows all values of what is decoded of the frame that is looked at; null where nothing is. */
  fullRange() {
    const samples = this.frame.byServer ? null : this.frame.decoded.get(this.frame.bestDecoded);
    return samples && samples.planes.length === 1 ? fullWindow(samples, this.#attributes.of(this.frame) ?? {}) : null;
  }

  /** The coarsest level of a frame that fills the stage; null where its levels are not known yet. */
  needed(frame) {
    const finer = this.#scale(frame) * Math.max(1, this.#attributes.aspect(frame)) * (devicePixelRatio || 1); // of both directions
    return frame.levelOf(Math.min(frame.columns, Math.floor(frame.columns * finer)));
  }

  /** Paint for a stage of another size; whether it is another. */
  resized() {
    const before = this.#box;
    const { width, height } = (this.#box = $("stage").getBoundingClientRect());
    if (!this.frame || !before || (width === before.width && height === before.height)) return false;
    this.#place(this.painted?.frame ?? this.frame);
    this.#refresh();
    return true;
  }

  #scale(frame) {
    const { width, height } = (this.#box ??= $("stage").getBoundingClientRect());
    return Math.max(0, Math.min(width / frame.columns, height / (frame.rows * this.#attributes.aspect(frame))));
  }

  #place(frame) {
    const scale = this.#scale(frame);
    this.#canvas.style.width = `${frame.columns * scale}px`;
    this.#canvas.style.height = `${frame.rows * this.#attributes.aspect(frame) * scale}px`;
  }

  #named(name) {
    return [name, this.#failure].filter(Boolean).join(" · ");
  }

  #say(name) {
    $("quality").classList.toggle("late", name === LOADING); // no flicker where the image is there at once
    $("quality").textContent = name;
    $("quality").hidden = !name;
  }

  #refresh() {
    const frame = this.frame;
    const attributes = this.#attributes.of(frame);
    if (!attributes) {
      // Without them no value has a meaning.
      const here = () => {
        if (frame !== this.frame) return;
        if (!frame.byServer) return this.#refresh();
        if (this.painted?.frame !== frame) return;
        this.#place(frame);
        this.#changed();
      };
      this.#attributes.fetch(frame).then(here, (error) => this.failed(frame, error));
      if (!frame.byServer) return;
    }
    if (attributes && needsServer(attributes)) frame.byServer = true;
    if (frame.byServer) {
      const ratio = devicePixelRatio || 1;
      const { width, height } = (this.#box ??= $("stage").getBoundingClientRect());
      const again = this.painted?.frame === frame && this.painted.rung === "server" && this.painted.window === this.window;
      this.#server.look(frame, this.window, [Math.ceil(width * ratio), Math.ceil(height * ratio)], this.#others, again);
      return;
    }
    this.#paint(attributes);
    this.#decode(frame);
  }

  /** Decode the best that is held of a frame, as long as it is looked at and gets better. */
  async #decode(frame) {
    if (frame.decoding) return; // it looks again when it is done
    frame.decoding = true;
    let rung = null;
    try {
      while (frame === this.frame && !frame.byServer) {
        const target = this.needed(frame);
        rung = target === null ? null : frame.best(target);
        const had = frame.bestDecoded;
        if (rung === null || (had !== null && had >= rung)) break;
        if (had === null && frame.hasFirst) rung = Math.min(frame.first, target); // a look at once
        const samples = await this.#decoding.decode(frame.source(rung), () => frame === this.frame);
        if (!samples) continue;
        check(frame, rung, samples);
        frame.keep(rung, samples, target);
        if (frame === this.frame) this.#paint(this.#attributes.of(frame));
        this.#changed();
      }
    } catch {
      // Not a codestream that is understood here.
      if (rung !== null && !Number.isInteger(rung)) {
        frame.isLossyMade = false;
        frame.lossy.shorten();
      } else {
        frame.byServer = true;
        frame.forget(true);
      }
      if (frame === this.frame) queueMicrotask(() => { if (frame === this.frame) this.#refresh(); });
    } finally {
      frame.decoding = false;
    }
  }

  #paint(attributes) {
    const frame = this.frame;
    const target = this.needed(frame);
    const rung = frame.bestDecoded;
    if (rung === null) return;
    const samples = frame.decoded.get(rung);
    const window = this.window ?? (samples.window ??= defaultWindow(samples, attributes));
    const name = nameOf(frame, rung, target);
    if (this.painted?.frame !== frame || this.painted.rung !== rung || this.painted.window !== window) {
      const { columns, rows } = samples;
      if (this.#pixels?.width !== columns || this.#pixels.height !== rows) this.#pixels = new ImageData(columns, rows);
      shaded(samples, attributes, window, this.#pixels);
      this.#size(columns, rows);
      this.#context.putImageData(this.#pixels, 0, 0);
    }
    this.#shown({ frame, rung, window, name });
  }

  #putBitmap(frame, bitmap, name, window) {
    if (frame !== this.frame) return;
    this.#fail("", false);
    this.#size(bitmap.width, bitmap.height);
    this.#context.drawImage(bitmap, 0, 0);
    this.#shown({ frame, rung: "server", window, name });
  }

  #size(columns, rows) {
    if (this.#canvas.width !== columns) this.#canvas.width = columns;
    if (this.#canvas.height !== rows) this.#canvas.height = rows;
  }

  #shown(painted) {
    this.painted = painted;
    this.#place(painted.frame);
    this.#canvas.hidden = false;
    $("nothing").hidden = true;
    if (painted.rung === painted.frame.stored.finest) this.#fail("", false);
    this.#say(this.#named(painted.name));
    this.#changed();
  }
}

/** What the reader is told of a rung; nothing of the whole frame alone. */
function nameOf(frame, rung, target) {
  if (rung === frame.stored.finest) return "";
  if (rung >= target) return "at screen size";
  if (rung >= target - 0.5) return `${DECIBELS} dB`;
  const size = frame.sizeOf(Math.ceil(rung)).join(" × ");
  return rung <= frame.first ? `preview, ${size}` : `level ${size}`;
}

/** Throws unless decoded samples are what the Data Set describes. */
function check(frame, rung, { columns, rows, planes, signed, precision }) {
  const { shape } = frame;
  const [wide, high] = frame.sizeOf(Math.ceil(rung));
  const bits = Math.max(shape.bitsStored, shape.bitsAllocated === 16 ? 9 : 1); // codestreams of 16 bits declare 9 at least
  if (columns !== wide || rows !== high || planes.length !== shape.samplesPerPixel || signed !== (shape.pixelRepresentation === 1)
    || precision > bits) {
    throw new Error("the codestream is not what the Data Set describes");
  }
}
