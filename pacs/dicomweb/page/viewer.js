// A series: the stack that the reader moves through, its windows, and what the page says of it.

import { Attributes } from "./attributes.js";
import { Decoding } from "./decoding.js";
import { Refused, answer, ask, date, person, studyOf, text } from "./dicom.js";
import { $, VIEWER, complain, make, show, visits } from "./document.js";
import { framesOf, outwards } from "./frames.js";
import { Link } from "./link.js";
import { Reading } from "./reading.js";
import { guessedWindow, headerWindows } from "./shades.js";
import { Stage } from "./stage.js";
import { identify, viewerLink } from "./studies.js";

const CINE_MS = 80;
const ARRIVING_MS = 5000;
const SETTLED_MS = 30_000;
const BROKEN_MS = 5000;
const SERVER_MS = 60; // between two windows that the server is asked for
const CT_PRESETS = [
  ["Brain", 40, 80], ["Subdural", 75, 215], ["Bone", 500, 2000], ["Lung", -600, 1500], ["Abdomen", 50, 350],
  ["Mediastinum", 40, 400], ["Angio", 300, 600],
];
const WINDOW_KEYS = { ArrowDown: [0, 1], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowLeft: [-1, 0] }; // with Shift
const WINDOW_STEP = 10; // pixels of a drag
const KEYS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 };

const decoding = new Decoding();
const link = new Link();
let view = null; // { study, series, attributes, stage, reading } of the series that is open
let cine = 0;

const frames = () => view?.reading.frames ?? [];
const shown = () => frames()[view?.reading.at];
const placeOf = ({ url }) => frames().findIndex((frame) => frame.url === url);

/** Open a series at its first image. */
export async function showViewer(uid, seriesUid) {
  const current = visits.current();
  const path = `/studies/${uid}/series/${seriesUid}`;
  const mine = (view = open(path));
  $("nothing").textContent = "loading";
  $("nothing").hidden = false;
  show("viewer", [["Studies", "#/"], ["Study", `#/study/${uid}`], ["Series", ""]]);
  const [study, found, { list: index }] = await Promise.all([
    studyOf(uid), ask(`/studies/${uid}/series?SeriesInstanceUID=${seriesUid}&includefield=0008103E`),
    ask(`${path}/progressive`, "application/json"),
  ]);
  if (!current()) return;
  Object.assign(mine, { study, series: found.list[0] ?? {} });
  const described = text(mine.series, "0008103E");
  show("viewer", [["Studies", "#/"], [person(study, "00100010") || "Study", `#/study/${uid}`], [described || "Series", ""]]);
  identify($("viewer-identity"), study, text(study, "00081030"), described, VIEWER && viewerLink(uid, "Open in OHIF", seriesUid));
  $("overlay").textContent = [
    person(study, "00100010") || "(no name)", `ID ${text(study, "00100020") || "unknown"}`, date(study, "00080020") || "no date",
  ].join("\n");
  take(path, index);
  follow(path, index, current);
  if (frames().length) return begin(path, current);
  $("nothing").textContent = "This series has no images.";
  $("nothing").hidden = false;
}

function open(path) {
  const attributes = new Attributes();
  const changed = () => { describe(); view?.reading.trim(); };
  const stage = new Stage({ attributes, decoding, others: neighbours, changed, broken: lookAgain });
  return { study: null, series: null, attributes, stage, reading: new Reading(path, { link, stage }) };
}

/** Leave the series that is open: nothing of it stays on the screen. */
export function closeViewer() {
  stopCine();
  drag = null;
  const left = view;
  view = null;
  left?.reading.close();
  left?.stage.close();
  for (const id of ["overlay", "overlay-right", "position", "window-values"]) $(id).textContent = "";
  $("viewer-identity").replaceChildren();
  $("window").replaceChildren(make("option", "Default", { value: "" }));
  $("window").disabled = true;
  $("arriving").hidden = $("play").disabled = true;
}

function take(path, index) {
  const before = new Set(frames());
  const now = framesOf(path, index, frames());
  for (const frame of now) if (!before.has(frame)) view.attributes.forget(frame);
  view.reading.set(now, index.state);
  $("slider").max = Math.max(1, frames().length);
  $("play").disabled = frames().length < 2;
}

async function begin(path, current) {
  const presets = text(view.series, "00080060") === "CT" ? CT_PRESETS : [];
  $("window").replaceChildren(
    make("option", "Default", { value: "" }),
    ...presets.map(([name, center, width]) => make("option", name, { value: `${center},${width}` })),
    make("option", "Full range", { value: "full" }),
    make("option", "By hand", { value: "hand", hidden: true }),
  );
  goto(0);
  // The first image goes first; the attributes of the others come in one answer.
  await view.attributes.fetch(frames()[0]).catch(() => {});
  if (current()) $("window").firstChild.after(...headerWindows(view.attributes.of(frames()[0]) ?? {}).map(option));
  if (current()) await view.attributes.fetchAll(path, frames()).catch(() => {});
}

const option = ({ name, center, width, shape }) => make("option", name, { value: `${center},${width},${shape}` });
const kind = ({ shape }) => ({ colour: shape.samplesPerPixel > 1 || shape.photometricInterpretation === "PALETTE COLOR" });

/** A series may grow: look again, often while it is arriving, and stay on the image that is shown. */
async function follow(path, index, current) {
  for (;;) {
    $("arriving").hidden = !index.receiving;
    await new Promise((resolve) => setTimeout(resolve, index.receiving ? ARRIVING_MS : SETTLED_MS));
    if (!current()) return;
    if (document.hidden) continue;
    const { state } = index;
    try {
      index = await later(path, index);
    } catch (error) {
      if (!(error instanceof Refused) || !current()) continue;
      // It is gone: whoever took it out of the archive does not want it to be read.
      complain(`This series is not to be had any more: ${error.message}`, false);
      $("arriving").hidden = true;
      return;
    }
    if (!current()) return;
    if (index.state === state) continue;
    const at = shown();
    take(path, index);
    if (!at && frames().length) begin(path, current);
    else if (at) goto(Math.max(0, placeOf(at)));
  }
}

/** The index of a series as it is now. */
async function later(path, index) {
  const address = `${path}/progressive`;
  const accept = "application/json";
  if (!index.receiving) {
    const { headers } = await answer(address, { method: "HEAD", headers: { Accept: accept } });
    if (headers.get("Series-State") === index.state) return index;
  }
  return (await ask(address, accept)).list;
}

function* neighbours(count) {
  for (const place of [...outwards(frames().length, view?.reading.at ?? 0)].slice(1, count + 1)) yield frames()[place];
}

// --- moving through the stack

/** Go to an image: the best of it that is held at once, better ones as soon as the stack rests there. */
function goto(index) {
  if (!frames().length) return;
  const at = Math.min(Math.max(index, 0), frames().length - 1);
  // A cine does not stop anywhere: what its images lack goes on coming from where it began.
  if (cine) view.reading.at = at;
  else view.reading.look(at);
  $("slider").value = at + 1;
  $("window").disabled = kind(frames()[at]).colour;
  $("position").textContent = `Image ${at + 1} / ${frames().length}`;
  view.stage.look(frames()[at]);
}

/** The line broke: try again after a while what the reader still looks at. What went wrong stays said until more comes. */
function lookAgain() {
  const [mine, frame] = [view, shown()];
  setTimeout(() => {
    if (view !== mine || frame !== shown() || cine) return;
    view.reading.look(view.reading.at);
    view.stage.look(frame, false);
  }, BROKEN_MS);
}

/** Say what is on the screen: that may still be the image before. */
function describe() {
  const painted = view?.stage.painted;
  if (!painted) {
    for (const id of ["overlay-right", "window-values"]) $(id).textContent = "";
    return;
  }
  const place = placeOf(painted.frame) + 1;
  const label = `${place} / ${frames().length}`;
  // Of a lossy compression before the image came here: PS3.3 C.7.6.1.1.5
  const lossy = text(view.attributes.of(painted.frame), "00282110").trim() === "01" ? "lossy" : "";
  $("overlay-right").textContent = [text(view.series, "00080060"), text(view.series, "0008103E"), lossy, label].filter(Boolean).join("\n");
  $("image").setAttribute("aria-label", `Image ${place} of ${frames().length}, patient ${person(view.study, "00100010") || "without name"}, `
    + `study of ${date(view.study, "00080020") || "unknown date"}${lossy && ", compressed with loss"}`);
  $("window-values").textContent = kind(painted.frame).colour ? "" : windowText(painted.window);
}

const windowText = (window) => (window?.table ? "VOI LUT" : window ? `C ${short(window.center)} · W ${short(window.width)}` : "");
const short = (value) => Number(value.toPrecision(5));

function stopCine() {
  clearInterval(cine);
  cine = 0;
  $("play").textContent = "Play";
  $("position").setAttribute("aria-live", "polite");
  $("play").setAttribute("aria-pressed", "false");
}

function toggleCine() {
  if (cine) {
    stopCine();
    return goto(view.reading.at);
  }
  if (frames().length < 2) return;
  cine = setInterval(() => goto((view.reading.at + 1) % frames().length), CINE_MS);
  $("play").textContent = "Stop";
  $("position").setAttribute("aria-live", "off"); // twelve a second are not to be read out
  $("play").setAttribute("aria-pressed", "true");
}

$("play").addEventListener("click", toggleCine);
$("look-again").addEventListener("click", () => {
  goto(view.reading.at);
  $("stage").focus({ preventScroll: true });
});
$("slider").addEventListener("input", () => goto(Number($("slider").value) - 1));

let turned = 0;
$("stage").addEventListener("wheel", (event) => {
  if (event.ctrlKey) return; // the browser's zoom
  event.preventDefault();
  turned += event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
  if (Math.abs(turned) < 40 || !view) return;
  // A notch of a wheel is one image, whatever the system makes of it: none is passed over.
  goto(view.reading.at + Math.sign(turned));
  turned = 0;
}, { passive: false });

$("stage").addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's: back, zoom
  if (event.target === $("look-again") && (event.key === " " || event.key === "Enter")) return;
  if (event.shiftKey && event.key in WINDOW_KEYS) {
    if (frames().length && !kind(shown()).colour) showIn(moved(windowNow(), ...WINDOW_KEYS[event.key].map((way) => way * WINDOW_STEP)));
  } else if (event.key === " ") toggleCine();
  else if (event.key in KEYS && view) goto(view.reading.at + KEYS[event.key]);
  else return;
  event.preventDefault();
});

new ResizeObserver(() => {
  if (!view || !frames().length || !view.stage.resized()) return;
  if (!cine && !shown().byServer) view.reading.look(view.reading.at, true);
}).observe($("stage"));

// --- windows

$("window").addEventListener("change", () => {
  const chosen = $("window").value;
  const [center, width, shape] = chosen.split(",");
  if (chosen === "full") view.stage.window = view.stage.fullRange() ?? guessedWindow(attributesNow(), shown().shape, false);
  else view.stage.window = chosen ? { center: Number(center), width: Number(width), shape: shape ?? "LINEAR" } : null;
  view.stage.look(shown(), false);
  describe();
});

/** The window in which the frame that is looked at is shown now. */
function windowNow() {
  const { stage } = view;
  const painted = stage.painted?.frame === shown() ? stage.painted.window : null;
  return stage.window ?? (painted?.width ? painted : null) ?? guessedWindow(attributesNow(), shown().shape);
}

const attributesNow = () => view.attributes.of(shown()) ?? {};

/** A window after so many pixels of a drag: whole numbers, unless it is narrow. */
function moved({ center, width, shape }, across, down) {
  const unit = width / 300;
  const grain = Math.min(1, 10 ** Math.floor(Math.log10(unit)));
  const rounded = (value) => Number((Math.round(value / grain) * grain).toPrecision(12));
  const least = shape === "LINEAR" ? 1 : grain;
  return { center: rounded(center + down * unit), width: Math.max(least, rounded(width + across * unit)), shape };
}

let waiting = false;

/** Show the frame that is looked at in a window, as often as it can be painted. */
function showIn(window) {
  view.stage.window = window;
  $("window").value = "hand";
  if (waiting) return;
  waiting = true;
  const again = () => {
    waiting = false;
    if (view && frames().length) view.stage.look(shown(), false);
    describe();
  };
  if (shown().byServer) setTimeout(again, SERVER_MS);
  else requestAnimationFrame(again);
}

let drag = null;
$("stage").addEventListener("pointerdown", (event) => {
  if (event.button || event.target === $("look-again") || !frames().length || kind(shown()).colour) return;
  drag = { x: event.clientX, y: event.clientY, from: windowNow() };
  $("stage").setPointerCapture(event.pointerId);
});
$("stage").addEventListener("pointermove", (event) => {
  if (!drag) return;
  const across = event.clientX - drag.x, down = event.clientY - drag.y;
  if (!view.stage.window && Math.hypot(across, down) < 4) return;
  $("stage").classList.add("windowing");
  showIn(moved(drag.from, across, down));
});
for (const over of ["pointerup", "pointercancel"]) {
  $("stage").addEventListener(over, () => {
    drag = null;
    $("stage").classList.remove("windowing");
  });
}
