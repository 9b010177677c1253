// The built-in page: studies, series, and a stack of images. It uses nothing but DICOMweb, as any viewer could.
// Text of a Data Set reaches the document through textContent alone: whoever wrote the file may be hostile.

const ROOT = "/dicomweb";
const VIEWER = document.documentElement.dataset.viewer ?? ""; // where the server has OHIF, if it has
const PAGE = 25;
const SMALL = 128;
const SMALL_KEPT = 600;
const FULL_AFTER = 60;
const AHEAD = 150;
const CINE_MS = 80;
const ARRIVING_MS = 5000;
const CT_PRESETS = [
  ["Brain", 40, 80], ["Subdural", 75, 215], ["Bone", 500, 2000], ["Lung", -600, 1500], ["Abdomen", 50, 350],
  ["Mediastinum", 40, 400], ["Angio", 300, 600],
];

const $ = (id) => document.getElementById(id);
const sections = ["studies", "study", "viewer"];
let visit = 0; // counts page changes: what arrives for an earlier one is dropped

// --- DICOM JSON

const values = (item, tag) => item?.[tag]?.Value ?? [];
const text = (item, tag) => values(item, tag).filter((value) => value !== null).join(" / ");

function person(item, tag) {
  const name = values(item, tag)[0];
  if (!name) return "";
  const shown = (group) => {
    const [family, given, middle, prefix, suffix] = (group ?? "").split("^").map((part) => part.trim());
    return [[family, [given, middle].filter(Boolean).join(" ")].filter(Boolean).join(", "), prefix, suffix].filter(Boolean).join(" ");
  };
  return [shown(name.Alphabetic), shown(name.Ideographic)].filter(Boolean).join(" · ");
}

function date(item, tag) {
  const value = text(item, tag);
  return /^\d{8}$/.test(value) ? `${value.slice(0, 4)}-${value.slice(4, 6)}-${value.slice(6)}` : value;
}

function time(item, tag) {
  const value = text(item, tag);
  return /^\d{4}/.test(value) ? `${value.slice(0, 2)}:${value.slice(2, 4)}` : "";
}

const counted = (count, one) => `${count} ${one}${count === 1 || one === "series" ? "" : "s"}`;

// --- asking

async function ask(path, accept = "application/dicom+json") {
  const response = await fetch(ROOT + path, { headers: { Accept: accept } });
  if (!response.ok) {
    const told = await response.json().catch(() => ({}));
    throw new Error(told.message ?? `The server answered ${response.status}.`);
  }
  return { list: response.status === 204 ? [] : await response.json(), total: response.headers.get("X-Total-Count") };
}

// --- making elements

function make(name, content, properties = {}) {
  const element = Object.assign(document.createElement(name), properties);
  for (const child of [content].flat()) if (child !== undefined && child !== null && child !== "") element.append(child);
  return element;
}

function show(section, crumbs) {
  for (const name of sections) $(name).hidden = name !== section;
  $("problem").hidden = true;
  $("crumbs").replaceChildren(...crumbs.map(([label, href]) => make("li", href ? make("a", label, { href }) : label)));
  document.title = [...crumbs.map(([label]) => label).reverse(), "pacs"].join(" · ");
}

function identify(heading, study, ...more) {
  const fact = (label, value) => make("span", [`${label} `, make("b", value || "unknown")]);
  heading.replaceChildren(
    person(study, "00100010") || "(no name)", fact("ID", text(study, "00100020")), fact("born", date(study, "00100030")),
    fact("sex", text(study, "00100040")), fact("study", [date(study, "00080020"), time(study, "00080030")].filter(Boolean).join(" ")),
    ...more.filter(Boolean).map((line) => make("span", line)),
  );
}

async function studyOf(uid) {
  const { list } = await ask(`/studies?StudyInstanceUID=${encodeURIComponent(uid)}&includefield=00081030&limit=1`);
  if (!list.length) throw new Error("This study is not in the archive.");
  return list[0];
}

// --- the list of studies

async function showStudies(query) {
  const mine = visit;
  show("studies", [["Studies", ""]]);
  const offset = Math.max(0, Number(query.get("offset")) || 0);
  const field = query.get("field") ?? "PatientName";
  const term = query.get("term") ?? "";
  $("field").value = field;
  $("term").value = term;
  const wanted = new URLSearchParams({ limit: PAGE + 1, offset, includefield: "00081030" });
  if (term) wanted.set(field, matchOf(field, term));
  const { list, total } = await ask(`/studies?${wanted}`);
  if (mine !== visit) return;
  const shown = list.slice(0, PAGE);
  $("rows").replaceChildren(...shown.map(studyRow));
  if (!shown.length) {
    const cell = make("td", term ? "No study matches." : "The archive is empty. Upload with: pacs store FOLDER", { colSpan: 8, className: "empty" });
    $("rows").replaceChildren(make("tr", cell));
  }
  $("count").textContent = shown.length ? `${offset + 1}–${offset + shown.length} of ${total ?? "many"}` : "";
  turn($("newer"), offset > 0, query, offset - PAGE);
  turn($("older"), list.length > PAGE, query, offset + PAGE);
}

function matchOf(field, term) {
  if (field === "StudyDate") return term.replace(/(\d{4})-(\d{2})-(\d{2})/g, "$1$2$3").replace(/\s/g, "");
  if (field === "ModalitiesInStudy") return term.trim().toUpperCase();
  return /[*?]/.test(term) ? term : `*${term.trim()}*`;
}

function turn(button, possible, query, offset) {
  button.disabled = !possible;
  button.onclick = () => {
    const next = new URLSearchParams(query);
    next.set("offset", Math.max(0, offset));
    location.hash = `#/?${next}`;
  };
}

function studyRow(study) {
  const href = `#/study/${text(study, "0020000D")}`;
  const cell = (value, className = "") => make("td", value, { className });
  const row = make("tr", [
    make("th", [
      make("a", person(study, "00100010") || "(no name)", { href }),
      VIEWER && viewerLink(text(study, "0020000D"), "OHIF"),
    ], { scope: "row" }),
    cell(text(study, "00100020")), cell(date(study, "00100030"), "moment"),
    cell([date(study, "00080020"), " ", time(study, "00080030")], "moment"),
    cell(values(study, "00080061").map((modality) => make("span", String(modality), { className: "chip" }))),
    cell(text(study, "00081030")),
    cell(text(study, "00201206"), "number"), cell(text(study, "00201208"), "number"),
  ]);
  row.addEventListener("click", (event) => { if (!event.target.closest("a")) location.hash = href; });
  return row;
}

function viewerLink(study, label, series) {
  const query = new URLSearchParams({ StudyInstanceUIDs: study, ...(series ? { initialSeriesInstanceUID: series } : {}) });
  return make("a", label, { className: "open", href: `${VIEWER}/viewer?${query}`, title: "Open in the OHIF viewer" });
}

// --- one study

async function showStudy(uid) {
  const mine = visit;
  show("study", [["Studies", "#/"], ["Study", ""]]);
  $("study-identity").replaceChildren();
  $("cards").replaceChildren();
  const [study, { list }] = await Promise.all([studyOf(uid), ask(`/studies/${uid}/series?includefield=0008103E`)]);
  if (mine !== visit) return;
  show("study", [["Studies", "#/"], [person(study, "00100010") || "Study", ""]]);
  identify($("study-identity"), study, text(study, "00081030"), VIEWER && viewerLink(uid, "Open in OHIF"));
  $("cards").replaceChildren(...list.map((series) => card(uid, series)));
}

function card(uid, series) {
  const seriesUid = text(series, "0020000E");
  const images = Number(text(series, "00201209")) || 0;
  const name = text(series, "0008103E") || `Series ${text(series, "00200011") || ""}`;
  const modality = text(series, "00080060") || "?";
  const picture = make("img", null, { src: `${ROOT}/studies/${uid}/series/${seriesUid}/thumbnail?viewport=256,256`, alt: "", loading: "lazy" });
  const figure = make("figure", picture);
  picture.onerror = () => figure.replaceChildren(`${modality}: no image`);
  const facts = make("small", [make("span", modality, { className: "chip" }), ` ${counted(images, "instance")}`]);
  return make("li", make("a", [figure, make("div", [make("strong", name, { title: name }), facts])],
    { className: "card", href: `#/study/${uid}/series/${seriesUid}` }));
}

// --- the viewer

const view = {
  items: [], at: 0, study: null, series: null, small: new Map(), full: null, timer: 0, center: 0, width: 0, windowed: false,
  colour: false, cine: 0, url: "",
};

async function showViewer(uid, seriesUid) {
  const mine = visit;
  resetViewer();
  const path = `/studies/${uid}/series/${seriesUid}`;
  show("viewer", [["Studies", "#/"], ["Study", `#/study/${uid}`], ["Series", ""]]);
  const [study, seriesFound, { list: index }] = await Promise.all([
    studyOf(uid), ask(`/studies/${uid}/series?SeriesInstanceUID=${seriesUid}&includefield=0008103E`),
    ask(`${path}/progressive`, "application/json"),
  ]);
  if (mine !== visit) return;
  view.study = study;
  view.series = seriesFound.list[0] ?? {};
  view.items = itemsOf(path, index);
  const described = text(view.series, "0008103E");
  show("viewer", [["Studies", "#/"], [person(study, "00100010") || "Study", `#/study/${uid}`], [described || "Series", ""]]);
  identify($("viewer-identity"), study, text(study, "00081030"), described, VIEWER && viewerLink(uid, "Open in OHIF", seriesUid));
  $("overlay").textContent = [
    person(study, "00100010") || "(no name)", `ID ${text(study, "00100020") || "unknown"}`, date(study, "00080020") || "no date",
  ].join("\n");
  $("slider").max = Math.max(1, view.items.length);
  if (index.receiving) follow(path, index.state, mine);
  if (!view.items.length) return nothing("This series has no images.");
  await windowOf(view.items[0], mine);
  if (mine === visit) goto(0);
}

// Frames in reading order, each with the size of its small rung: the coarsest resolution level that is of any use.
function itemsOf(path, index) {
  return index.frames.map((frame) => {
    const shape = index.shapes[frame.shape] ?? { rows: 0, columns: 0, levels: [] };
    const small = shape.levels.find((level) => Math.max(...level) >= SMALL) ?? [SMALL, SMALL];
    return {
      base: `${path}/instances/${frame.instance}`, url: `${path}/${frame.url}/rendered`, small: [small[1], small[0]],
      size: [shape.columns, shape.rows],
    };
  });
}

// A series that is still arriving: look again until it is complete, and stay on the image that is shown.
async function follow(path, state, mine) {
  $("arriving").hidden = false;
  await new Promise((resolve) => setTimeout(resolve, ARRIVING_MS));
  const { list: index } = await ask(`${path}/progressive`, "application/json").catch(() => ({ list: { receiving: true, state } }));
  if (mine !== visit) return;
  if (index.state !== state) {
    const shown = view.items[view.at];
    view.items = itemsOf(path, index);
    $("slider").max = Math.max(1, view.items.length);
    if (!shown && view.items.length) await windowOf(view.items[0], mine);
    if (mine !== visit) return;
    goto(Math.max(0, view.items.findIndex((item) => item.url === shown?.url)));
  }
  if (index.receiving) return follow(path, index.state, mine);
  $("arriving").hidden = true;
}

function resetViewer() {
  stopCine();
  clearTimeout(view.timer);
  view.full?.abort();
  for (const entry of view.small.values()) entry.then((url) => url && URL.revokeObjectURL(url));
  if (view.url) URL.revokeObjectURL(view.url);
  Object.assign(view, { items: [], at: 0, study: null, series: null, small: new Map(), full: null, windowed: false, colour: false, url: "" });
  // Nothing of the patient before stays on the screen, not even for a moment.
  $("image").hidden = true;
  $("image").removeAttribute("src");
  for (const id of ["overlay", "overlay-right", "position", "window-values"]) $(id).textContent = "";
  $("viewer-identity").replaceChildren();
  $("nothing").hidden = $("quality").hidden = $("arriving").hidden = true;
}

async function windowOf(item, mine) {
  const { list } = await ask(`${item.base}/metadata`).catch(() => ({ list: [{}] }));
  if (mine !== visit) return;
  const image = list[0] ?? {};
  const bits = Number(text(image, "00280101")) || 8;
  const slope = Number(values(image, "00281053")[0] ?? 1) || 1;
  const intercept = Number(values(image, "00281052")[0] ?? 0) || 0;
  const signed = values(image, "00280103")[0] === 1;
  view.colour = Number(text(image, "00280002")) === 3 || text(image, "00280004") === "PALETTE COLOR";
  view.center = Number(values(image, "00281050")[0] ?? (signed ? 0 : 2 ** (bits - 1)) * slope + intercept);
  view.width = Number(values(image, "00281051")[0] ?? 2 ** bits * Math.abs(slope));
  const presets = text(view.series, "00080060") === "CT" ? CT_PRESETS : [];
  $("window").replaceChildren(
    make("option", "Default", { value: "" }),
    ...presets.map(([name, center, width]) => make("option", name, { value: `${center},${width}` })),
    make("option", "By hand", { value: "hand", hidden: true }),
  );
  $("window").disabled = view.colour;
}

const windowQuery = () => (view.windowed ? `&window=${view.center},${view.width},linear` : "");

async function load(url, signal) {
  const response = await fetch(ROOT + url, { headers: { Accept: "image/jpeg" }, signal });
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).message ?? `The server answered ${response.status}.`);
  return URL.createObjectURL(await response.blob());
}

function smallOf(item) {
  const key = `${item.url}?viewport=${item.small.join(",")}${windowQuery()}`;
  let entry = view.small.get(key);
  if (!entry) {
    entry = load(key).catch(() => null);
    view.small.set(key, entry);
    while (view.small.size > SMALL_KEPT) {
      const oldest = view.small.keys().next().value;
      view.small.get(oldest).then((url) => url && URL.revokeObjectURL(url));
      view.small.delete(oldest);
    }
  }
  return entry;
}

function goto(index) {
  if (!view.items.length) return;
  view.at = Math.min(Math.max(index, 0), view.items.length - 1);
  $("slider").value = view.at + 1;
  paint();
}

// The small level at once, the full one as soon as the stack rests for a moment on this image.
async function paint() {
  const mine = visit, at = view.at, item = view.items[at], query = windowQuery();
  const current = () => mine === visit && at === view.at && query === windowQuery();
  const label = `${at + 1} / ${view.items.length}`;
  $("position").textContent = `Image ${label}`;
  $("overlay-right").textContent = [text(view.series, "00080060"), text(view.series, "0008103E"), label].filter(Boolean).join("\n");
  $("window-values").textContent = view.windowed ? `C ${Math.round(view.center)} · W ${Math.round(view.width)}` : "";
  $("image").alt = `Image ${at + 1} of ${view.items.length}, patient ${person(view.study, "00100010") || "without name"}, study of ${date(view.study, "00080020") || "unknown date"}`;
  clearTimeout(view.timer);
  view.full?.abort();
  view.timer = setTimeout(() => paintFull(item, query, current), FULL_AFTER);
  const url = await smallOf(item);
  if (current() && url && view.full?.shown !== item) put(url, `preview, ${item.small.join(" × ")}`);
}

async function paintFull(item, query, current) {
  const stage = $("stage").getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const fit = [Math.ceil(stage.width * ratio), Math.ceil(stage.height * ratio)];
  const larger = item.size[0] > fit[0] && item.size[1] > fit[1];
  const asking = new AbortController();
  view.full = asking;
  try {
    const url = await load(`${item.url}?quality=92${larger ? `&viewport=${fit.join(",")}` : ""}${query}`, asking.signal);
    if (!current()) return URL.revokeObjectURL(url);
    asking.shown = item;
    if (view.url) URL.revokeObjectURL(view.url);
    view.url = url;
    put(url, "");
  } catch (error) {
    if (error.name !== "AbortError" && current()) nothing(error.message);
    return;
  }
  // Then the small rung of the others, from here outwards.
  for (let step = 1; step <= AHEAD; step++) {
    const near = [view.items[view.at + step], view.items[view.at - step]].filter(Boolean);
    if (current()) await Promise.all(near.map(smallOf));
  }
}

function put(url, quality) {
  $("image").src = url;
  $("image").hidden = false;
  $("nothing").hidden = true;
  $("quality").textContent = quality;
  $("quality").hidden = !quality;
}

function nothing(message) {
  $("image").hidden = true;
  $("quality").hidden = true;
  $("nothing").textContent = message;
  $("nothing").hidden = false;
}

function stopCine() {
  clearInterval(view.cine);
  view.cine = 0;
  $("play").textContent = "Play";
  $("play").setAttribute("aria-pressed", "false");
}

function toggleCine() {
  if (view.cine) return stopCine();
  view.cine = setInterval(() => goto((view.at + 1) % view.items.length), CINE_MS);
  $("play").textContent = "Stop";
  $("play").setAttribute("aria-pressed", "true");
}

$("play").addEventListener("click", toggleCine);
$("slider").addEventListener("input", () => goto(Number($("slider").value) - 1));
$("window").addEventListener("change", () => {
  const chosen = $("window").value;
  view.windowed = chosen !== "";
  if (view.windowed) [view.center, view.width] = chosen.split(",").map(Number);
  paint();
});

let turned = 0;
$("stage").addEventListener("wheel", (event) => {
  event.preventDefault();
  turned += event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
  const steps = Math.trunc(turned / 40);
  if (steps) { turned -= steps * 40; goto(view.at + steps); }
}, { passive: false });

const KEYS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 };
$("stage").addEventListener("keydown", (event) => {
  if (event.key === " ") toggleCine();
  else if (event.key in KEYS) goto(view.at + KEYS[event.key]);
  else return;
  event.preventDefault();
});

let drag = null;
$("stage").addEventListener("pointerdown", (event) => {
  if (event.button || view.colour || !view.items.length) return;
  drag = { x: event.clientX, y: event.clientY, center: view.center, width: view.width };
  $("stage").setPointerCapture(event.pointerId);
});
$("stage").addEventListener("pointermove", (event) => {
  if (!drag) return;
  const across = event.clientX - drag.x, down = event.clientY - drag.y;
  if (!view.windowed && Math.hypot(across, down) < 4) return;
  $("stage").classList.add("windowing");
  const unit = Math.max(drag.width, 1) / 300;
  view.windowed = true;
  view.width = Math.max(1, Math.round(drag.width + across * unit));
  view.center = Math.round(drag.center + down * unit);
  $("window").value = "hand";
  if (!drag.waiting) {
    drag.waiting = true;
    setTimeout(() => { if (drag) drag.waiting = false; paint(); }, 60);
  }
});
for (const over of ["pointerup", "pointercancel"]) {
  $("stage").addEventListener(over, () => {
    drag = null;
    $("stage").classList.remove("windowing");
  });
}

// --- finding the way

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const next = new URLSearchParams({ field: $("field").value, term: $("term").value });
  location.hash = $("term").value ? `#/?${next}` : "#/";
});

async function route() {
  visit += 1;
  const mine = visit;
  stopCine();
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const uid = "([0-9.]{1,64})";
  try {
    let found;
    if ((found = path.match(new RegExp(`^/study/${uid}/series/${uid}$`)))) await showViewer(found[1], found[2]);
    else if ((found = path.match(new RegExp(`^/study/${uid}$`)))) await showStudy(found[1]);
    else await showStudies(new URLSearchParams(query ?? ""));
  } catch (error) {
    if (mine !== visit) return;
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
  if (!$("viewer").hidden) $("stage").focus({ preventScroll: true });
}

$("root").textContent = location.origin + ROOT;
addEventListener("hashchange", route);
route();
