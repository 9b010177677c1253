// The list of studies, and one study with its series.

import { ROOT, ask, counted, date, person, studyOf, text, time, values } from "./dicom.js";
import { $, VIEWER, make, show, visits } from "./document.js";
import { EXAMPLES, keysOf } from "./terms.js";
import { thumbnail } from "./thumbnails.js";

const PAGE = 25;
const OTHERS = 50; // studies of one patient that are listed below a study

/** Who and what: the heading of a study or of a series. */
export function identify(heading, study, ...more) {
  const fact = (label, value) => make("span", [`${label} `, make("b", value || "unknown")]);
  heading.replaceChildren(
    person(study, "00100010") || "(no name)", fact("ID", text(study, "00100020")), fact("born", date(study, "00100030")),
    fact("sex", text(study, "00100040")), fact("study", [date(study, "00080020"), time(study, "00080030")].filter(Boolean).join(" ")),
    ...more.filter(Boolean).map((line) => make("span", line)),
  );
}

export function viewerLink(study, label, series) {
  const query = new URLSearchParams({ StudyInstanceUIDs: study, ...(series ? { initialSeriesInstanceUID: series } : {}) });
  return make("a", label, { className: "open", href: `${VIEWER}/viewer?${query}`, title: "Open in the OHIF viewer" });
}

// --- the list of studies

export async function showStudies(query) {
  const current = visits.current();
  show("studies", [["Studies", ""]]);
  const offset = Math.max(0, Number(query.get("offset")) || 0);
  const asked = query.get("field");
  const field = [...$("field").options].some(({ value }) => value === asked) ? asked : "PatientName";
  const term = query.get("term") ?? "";
  $("field").value = field;
  $("term").value = term;
  suggest();
  // What an earlier search found does not stand below this one.
  $("rows").replaceChildren();
  $("count").textContent = "loading";
  $("newer").disabled = $("older").disabled = true;
  const wanted = new URLSearchParams({ limit: PAGE + 1, offset, includefield: "00081030" });
  if (term.trim()) for (const [key, value] of Object.entries(keysOf(field, term))) wanted.set(key, value);
  const { list, total } = await ask(`/studies?${wanted}`).finally(() => { if (current()) $("count").textContent = ""; });
  if (!current()) return;
  const shown = list.slice(0, PAGE);
  $("rows").replaceChildren(...shown.map(studyRow));
  if (!shown.length) {
    const upload = ["The archive is empty. Upload with: ", make("code", `pacs store FOLDER --url ${location.origin}${ROOT}`)];
    const cell = make("td", term ? "No study matches." : offset ? "There are no more studies." : upload, { colSpan: 8, className: "empty" });
    $("rows").replaceChildren(make("tr", cell));
  }
  $("count").textContent = shown.length ? `${offset + 1}–${offset + shown.length} of ${total ?? "many"}` : "";
  turn($("newer"), offset > 0, query, offset - PAGE);
  turn($("older"), list.length > PAGE, query, offset + PAGE);
}

const suggest = () => { $("term").placeholder = EXAMPLES[$("field").value] ?? "all studies"; };
$("field").addEventListener("change", suggest);

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

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const next = new URLSearchParams({ field: $("field").value, term: $("term").value });
  location.hash = $("term").value ? `#/?${next}` : "#/";
});

// --- one study

export async function showStudy(uid) {
  const current = visits.current();
  show("study", [["Studies", "#/"], ["Study", ""]]);
  $("study-identity").replaceChildren(make("span", "loading"));
  $("cards").replaceChildren();
  $("others").hidden = true;
  const [study, { list }] = await Promise.all([studyOf(uid), ask(`/studies/${uid}/series?includefield=0008103E`)]);
  if (!current()) return;
  show("study", [["Studies", "#/"], [person(study, "00100010") || "Study", ""]]);
  identify($("study-identity"), study, text(study, "00081030"), VIEWER && viewerLink(uid, "Open in OHIF"));
  $("cards").replaceChildren(...list.map((series) => card(uid, series)));
  await showOthers(study, uid).catch(() => {}); // the study is there without them
}

/** Below a study: what else the archive has of that Patient ID, and of whom it says it is where that differs. */
async function showOthers(study, uid) {
  const current = visits.current();
  const id = text(study, "00100020");
  if (!id || /[*?\\]/.test(id)) return; // there is no search for a literal one of these
  const { list } = await ask(`/studies?${new URLSearchParams({ PatientID: id, limit: OTHERS + 1, includefield: "00081030" })}`);
  const others = list.filter((other) => text(other, "0020000D") !== uid && text(other, "00100020") === id);
  if (!current() || !others.length) return;
  $("others-title").textContent = `${list.length > OTHERS ? "Latest studies" : "Other studies"} of patient ID ${id}`;
  $("others-list").replaceChildren(...others.map((other) => make("li", [
    make("a", [date(other, "00080020") || "no date", " ", time(other, "00080030")], { href: `#/study/${text(other, "0020000D")}` }),
    ...values(other, "00080061").map((modality) => make("span", String(modality), { className: "chip" })),
    make("span", text(other, "00081030")),
    make("strong", differing(study, other)),
  ])));
  $("others").hidden = false;
}

/** Name and birth date of a study's patient where they are not those of another's: an ID alone names nobody. */
function differing(study, other) {
  const [name, born] = [person(other, "00100010"), date(other, "00100030")];
  return [
    name !== person(study, "00100010") && (name || "(no name)"), born !== date(study, "00100030") && `born ${born || "unknown"}`,
  ].filter(Boolean).join(", ");
}

function card(uid, series) {
  const seriesUid = text(series, "0020000E");
  const images = Number(text(series, "00201209")) || 0;
  const name = text(series, "0008103E") || `Series ${text(series, "00200011") || ""}`;
  const modality = text(series, "00080060") || "?";
  const figure = thumbnail(`/studies/${uid}/series/${seriesUid}`, modality);
  const facts = make("small", [make("span", modality, { className: "chip" }), ` ${counted(images, "instance")}`]);
  return make("li", make("a", [figure, make("div", [make("strong", name, { title: name }), facts])],
    { className: "card", href: `#/study/${uid}/series/${seriesUid}` }));
}
