// The attributes that a picture takes: of the instance, and of the functional groups of its frame.

import { Refused, ask, numeric } from "./dicom.js";

const SHARED = "52009229", PER_FRAME = "52009230"; // functional groups. PS3.3 C.7.6.16
const MACROS = ["00289145", "00289132"]; // Pixel Value Transformation and Frame VOI LUT. PS3.3 C.7.6.16.2.9, .10
const MEASURES = "00289110";
const SPACINGS = ["00280030", "00181164", "00280034"];
const SHOWN = [
  ...SPACINGS, "00280004", "00280103", "00280120", "00280121", "00281050", "00281051", "00281052", "00281053", "00281055", "00281056", "00283000",
  "00283010", "00282110",
];
const MOST = 2000; // instances whose metadata are asked for at once

const itemOf = (item, tag, place = 0) => item?.[tag]?.Value?.[place] ?? {};

function pick(instance) {
  const shared = itemOf(instance, SHARED);
  const chosen = (groups) => Object.assign({}, ...MACROS.map((macro) => itemOf(groups, macro)));
  const common = Object.fromEntries(SHOWN.filter((tag) => tag in instance).map((tag) => [tag, instance[tag]]));
  return {
    common: { ...common, ...chosen(shared) },
    frames: (instance[PER_FRAME]?.Value ?? []).map(chosen),
    spacing: itemOf(shared, MEASURES)["00280030"],
  };
}

/** Of the instances of one series. */
export class Attributes {
  #known = new Map(); // path of an instance -> what pick() leaves of it
  #coming = new Map();

  /** The attributes of a frame as if it stood alone; null as long as they are not here. */
  of(frame) {
    const found = this.#known.get(frame.instance);
    return found ? { ...found.common, ...found.frames[frame.number - 1] } : null;
  }

  /** Height of a pixel over its width. PS3.3 C.7.6.3.1.7, 10.7.1.3 */
  aspect(frame) {
    const found = this.#known.get(frame.instance);
    for (const element of [found?.spacing, ...SPACINGS.map((tag) => found?.common[tag])]) {
      const [vertical, horizontal] = (element?.Value ?? []).map(numeric);
      const ratio = vertical / horizontal;
      if (vertical > 0 && horizontal > 0 && ratio > 1 / 64 && ratio < 64) return ratio;
    }
    return 1;
  }

  /** Those of a frame are not what they were. */
  forget(frame) {
    this.#known.delete(frame.instance);
  }

  /** Ask for those of a frame, once. */
  async fetch(frame, signal) {
    const path = frame.instance;
    if (this.#known.has(path)) return;
    if (!this.#coming.has(path)) {
      const asked = ask(`${path}/metadata`, undefined, signal).then(({ list }) => {
        if (!list[0]) throw new Refused("The image is not described."); // without, no value has a meaning
        this.#known.set(path, pick(list[0]));
      });
      this.#coming.set(path, asked.finally(() => this.#coming.delete(path)));
    }
    await this.#coming.get(path);
  }

  /** Those of all instances, in one answer, where there are several. */
  async fetchAll(series, frames, signal) {
    const instances = new Set(frames.map((frame) => frame.instance));
    if (instances.size < 2 || instances.size > MOST) return;
    const { list } = await ask(`${series}/metadata`, undefined, signal);
    for (const instance of list) this.#known.set(`${series}/instances/${instance["00080018"]?.Value?.[0]}`, pick(instance));
  }
}
