// The page: choose a series and a plan, see when what is on the screen.

import { EVENTS, cache, imageLoadPoolManager } from "@cornerstonejs/core";
import { HeldFrame, LOSSLESS, LOSSY, SUBRESOLUTION, indexOf, streamOf } from "./series.js";
import { Sharpening, imageIdsOf, loadBy, start } from "./show.js";

const asked = new URLSearchParams(location.search);
const ROOT = asked.get("server") ?? `${location.origin}/dicomweb`;
const $ = (id) => document.getElementById(id);

const QUALITY = { urlArguments: "quality=45", decodeLevel: 0, imageQualityStatus: LOSSY };
const SMALL = { urlArguments: "pixels=128", decodeLevel: 0, imageQualityStatus: SUBRESOLUTION };
const NATIVE = `accept=${encodeURIComponent('multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1')}`;

const PLANS = {
  stream: {
    label: "as a stream of the series",
    text: "One response: a small level of every slice from the middle outwards, then each at 45 dB, then the rest.",
    rungs: "pixels:128,quality:45,lossless",
  },
  urls: {
    label: "by rungs, one URL each",
    text: "Cornerstone3D's own stages for the slice that is shown: ?pixels=128, ?quality=45, then the whole frame.",
    retrieve: {
      stages: [{ id: "small", retrieveType: "small" }, { id: "readable", retrieveType: "readable" }, { id: "whole", retrieveType: "whole" }],
      retrieveOptions: { small: SMALL, readable: QUALITY, whole: {} },
    },
  },
  whole: {
    label: "whole frames, compressed",
    text: "One request for each slice that is shown, lossless as it is stored.",
    retrieve: { stages: [{ id: "whole", retrieveType: "whole" }], retrieveOptions: { whole: {} } },
  },
  raw: {
    label: "whole frames, uncompressed",
    text: "What servers without any of this send.",
    retrieve: { stages: [{ id: "raw", retrieveType: "raw" }], retrieveOptions: { raw: { urlArguments: NATIVE } } },
  },
};

let run = null; // { stop, imageIds, at }
let viewport;

function milestone(run, what, received = run.received) {
  if (run.milestones.has(what)) return;
  const seconds = (performance.now() - run.started) / 1000;
  run.milestones.set(what, { seconds, received });
  const row = document.createElement("tr");
  const cells = [what, seconds.toFixed(2), received ? `${(received / 1e6).toFixed(2)} MB` : ""];
  row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  $("milestones").append(row);
}

async function read(series, name) {
  run?.stop.abort();
  const plan = PLANS[name];
  const mine = (run = { stop: new AbortController(), started: performance.now(), received: 0, milestones: new Map(), at: 0 });
  $("milestones").replaceChildren();
  $("slices").replaceChildren();
  $("problem").textContent = $("holding").textContent = "";
  $("plan-text").textContent = plan.text;
  cache.purgeCache();
  const index = await indexOf(series, mine.stop.signal);
  const imageIds = await imageIdsOf(series, index);
  if (mine !== run || !imageIds.length) return;
  milestone(mine, "the index and the metadata");
  Object.assign(mine, { imageIds, at: Math.floor(imageIds.length / 2), index });
  $("slices").replaceChildren(...imageIds.map(() => document.createElement("i")));
  if (plan.retrieve) {
    loadBy(plan.retrieve);
    await viewport.setStack(imageIds, mine.at);
    return;
  }
  const frames = index.frames.map((frame) => new HeldFrame(frame.ends));
  const numbers = new Map(imageIds.map((imageId, number) => [imageId, number]));
  const sharpening = new Sharpening((imageId) => frames[numbers.get(imageId)].best);
  viewport.setStack(imageIds, mine.at);
  const counts = { [SUBRESOLUTION]: 0, [LOSSY]: 0, [LOSSLESS]: 0 };
  for await (const part of streamOf(series, { rungs: plan.rungs, first: mine.at + 1, state: index.state, signal: mine.stop.signal })) {
    if (mine !== run) return;
    const number = Number(part.headers.get("frame")) - 1;
    mine.received = part.received;
    const before = frames[number].best?.quality;
    if (!frames[number].add(part)) continue;
    const { quality } = frames[number].best;
    $("slices").children[number].dataset.rung = quality - SUBRESOLUTION + 1;
    sharpening.improved(imageIds[number]);
    if (quality === before) continue;
    counts[quality] += 1;
    if (counts[quality] === imageIds.length) {
      milestone(mine, { [SUBRESOLUTION]: "every slice small", [LOSSY]: "every slice at 45 dB", [LOSSLESS]: "every slice lossless" }[quality]);
    }
  }
}

function painted() {
  if (!run?.imageIds) return;
  const image = viewport.getCornerstoneImage();
  const quality = image?.imageQualityStatus ?? LOSSLESS;
  if (!image) return;
  const names = { [SUBRESOLUTION]: "small", [LOSSY]: "lossy, full size", [LOSSLESS]: "lossless" };
  const at = run.imageIds.indexOf(image.imageId);
  $("holding").textContent = `${names[quality] ?? "partial"}, ${image.columns} × ${image.rows}`;
  $("position").textContent = `${at + 1} / ${run.imageIds.length}`;
  [...$("slices").children].forEach((mark, number) => mark.classList.toggle("shown", number === at));
  if ($("slices").children[at]) $("slices").children[at].dataset.rung = quality - SUBRESOLUTION + 1;
  milestone(run, "first image on the screen");
  milestone(run, `first image ${names[quality] ?? "partial"}`);
}

const go = (to) => {
  if (!run?.imageIds) return;
  run.at = Math.min(Math.max(to, 0), run.imageIds.length - 1);
  viewport.setImageIdIndex(run.at);
};

function begin() {
  const url = $("series").value;
  if (url) read(url, $("plan").value).catch((error) => { if (error.name !== "AbortError") $("problem").textContent = error.message; });
}

async function listSeries() {
  const named = asked.get("study") ? `&StudyInstanceUID=${encodeURIComponent(asked.get("study"))}` : "";
  const response = await fetch(`${ROOT}/series?limit=100&includefield=0008103E,00201209${named}`, { headers: { Accept: "application/dicom+json" } });
  if (!response.ok) throw new Error(`the archive at ${ROOT} answered ${response.status}`);
  const value = (item, tag) => item[tag]?.Value?.[0];
  const found = (response.status === 204 ? [] : await response.json()).filter((item) => value(item, "00201209"));
  found.sort((a, b) => value(b, "00201209") - value(a, "00201209"));
  $("series").replaceChildren(...found.map((item) => new Option(
    `${value(item, "00080060") ?? "?"} ${value(item, "0008103E") ?? ""} (${value(item, "00201209")})`,
    `${ROOT}/studies/${value(item, "0020000D")}/series/${value(item, "0020000E")}`,
  )));
}

async function main() {
  viewport = await start($("viewport"));
  globalThis.viewport = viewport; // for the console
  imageLoadPoolManager.setMaxSimultaneousRequests("interaction", 6);
  $("plan").replaceChildren(...Object.entries(PLANS).map(([name, plan]) => new Option(plan.label, name)));
  if (asked.get("plan") in PLANS) $("plan").value = asked.get("plan");
  $("viewport").addEventListener(EVENTS.IMAGE_RENDERED, painted);
  $("viewport").addEventListener("wheel", (event) => { event.preventDefault(); go(run.at + Math.sign(event.deltaY)); }, { passive: false });
  $("viewport").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (step) { event.preventDefault(); go(run.at + step); }
  });
  for (const id of ["series", "plan"]) $(id).addEventListener("change", begin);
  $("again").addEventListener("click", begin);
  await listSeries();
  begin();
}

main().catch((error) => { $("problem").textContent = error.message; });
