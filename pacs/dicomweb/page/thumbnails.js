// Pictures on the cards of a study: each asked for when its card comes into view, and missed when it stays away.

import { OFFLINE, Refused, answer } from "./dicom.js";
import { complain, make } from "./document.js";

const wanted = new Map(); // figure of a card that has not come into view -> what to ask for it
let asking = new AbortController();

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    const { address, modality } = wanted.get(target);
    seen.unobserve(target);
    wanted.delete(target);
    paint(target, address, modality);
  }
});

/** The figure of a card, for the series at `path` below the DICOMweb root. */
export function thumbnail(path, modality) {
  const figure = make("figure");
  wanted.set(figure, { address: `${path}/thumbnail?viewport=256,256`, modality });
  seen.observe(figure);
  return figure;
}

/** Nobody looks at the cards any more. */
export function leaveThumbnails() {
  asking.abort();
  asking = new AbortController();
  seen.disconnect();
  wanted.clear();
}

async function paint(figure, address, modality) {
  const { signal } = asking;
  try {
    const response = await answer(address, { headers: { Accept: "image/jpeg" }, signal });
    const bitmap = await createImageBitmap(await response.blob()).catch((error) => {
      throw error instanceof TypeError ? error : new Refused(error.message);
    });
    if (signal.aborted) return;
    const canvas = make("canvas", null, { width: bitmap.width, height: bitmap.height });
    canvas.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
    figure.replaceChildren(canvas);
  } catch (error) {
    if (signal.aborted) return;
    figure.replaceChildren(`${modality}: no image`);
    if (!(error instanceof Refused)) complain(error instanceof TypeError ? OFFLINE : error.message, true);
  }
}
