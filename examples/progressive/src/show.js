// Cornerstone3D: a stack viewport whose images come from anywhere and get better while they are looked at.

import * as core from "@cornerstonejs/core";
import dicomImageLoader from "@cornerstonejs/dicom-image-loader";

const ENGINE = "engine", VIEWPORT = "stack";

export async function start(element) {
  await core.init();
  dicomImageLoader.init({ maxWebWorkers: Math.max(1, Math.min(4, (navigator.hardwareConcurrency || 2) - 1)) });
  const engine = new core.RenderingEngine(ENGINE);
  engine.enableElement({ viewportId: VIEWPORT, element, type: core.Enums.ViewportType.STACK });
  return engine.getViewport(VIEWPORT);
}

/** Image ids of the frames of an index, with the metadata that decoding and display need. */
export async function imageIdsOf(series, index) {
  const response = await fetch(`${series}/metadata`, { headers: { Accept: "application/dicom+json" } });
  if (!response.ok) throw new Error(`the archive answered ${response.status} to ${series}/metadata`);
  const byInstance = new Map((await response.json()).map((instance) => [instance["00080018"].Value[0], instance]));
  return index.frames.map((frame) => {
    const imageId = `wadors:${series}/${frame.url}`;
    dicomImageLoader.wadors.metaDataManager.add(imageId, byInstance.get(frame.instance));
    return imageId;
  });
}

/** How Cornerstone3D itself loads a stack: by stages, each with arguments for the frame's URL. */
export function loadBy(configuration) {
  core.utilities.imageRetrieveMetadataProvider.add("stack", configuration);
}

/**
 * Or how we do: `held(imageId)` is what there is of a frame (see HeldFrame.best), null if nothing yet. Frames stay
 * compressed until they are looked at. Call `improved(imageId)` when a frame got better.
 */
export class Sharpening {
  #held;
  #shown = null; // { imageId, viewport, quality, resolve, decoding }

  constructor(held) {
    this.#held = held;
    loadBy({ create: () => ({ loadImages: ([imageId], viewport) => this.#show(imageId, viewport) }) });
  }

  #show(imageId, viewport) {
    return new Promise((resolve) => {
      this.#shown = { imageId, viewport, quality: -1, level: 99, resolve, decoding: false };
      this.#paint(this.#shown);
    });
  }

  improved(imageId) {
    if (this.#shown?.imageId === imageId) this.#paint(this.#shown);
  }

  async #paint(shown) {
    if (shown.decoding) return; // it looks again when it is done
    shown.decoding = true;
    for (;;) {
      const best = this.#held(shown.imageId);
      const better = best && (best.quality > shown.quality || (best.quality === shown.quality && best.decodeLevel < shown.level));
      if (!better || shown !== this.#shown) break;
      const image = await decode(shown.imageId, best);
      if (shown !== this.#shown) break; // the reader has moved on
      [shown.quality, shown.level] = [best.quality, best.decodeLevel];
      shown.viewport.successCallback(shown.imageId, image);
      shown.resolve(shown.imageId);
    }
    shown.decoding = false;
  }
}

async function decode(imageId, { bytes, transferSyntax, decodeLevel, quality }) {
  // The worker may take the buffer away from us: it gets a copy.
  const image = await dicomImageLoader.createImage(imageId, bytes.slice(), transferSyntax, { decodeLevel, useRGBA: false });
  image.imageQualityStatus = quality;
  image.transferSyntaxUID = transferSyntax;
  return image;
}
