// DICOM JSON (PS3.18 F): asking for it, and its values as a person reads them.

import { Patience } from "./silence.js";

export const ROOT = "/dicomweb";

/** What is not to be asked for again. */
export class Refused extends Error {}

export const OFFLINE = "no connection to the server";
const PASSING = new Set([408, 429, 502, 503, 504]); // statuses of what may go better in a while

/**
 * The answer to a request, or an error that says what the server says: Refused unless it may go better in a while,
 * Silence where nothing comes, be it in the middle of the body.
 */
export async function answer(url, { signal, ...options } = {}) {
  const own = new AbortController();
  const patience = new Patience((silence) => own.abort(silence));
  const asked = fetch(ROOT + url, { ...options, signal: signal ? AbortSignal.any([signal, own.signal]) : own.signal });
  const response = patience.watched(await patience.heard(asked).catch((error) => {
    throw error instanceof TypeError ? new TypeError(OFFLINE) : error;
  }));
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const message = plain(told?.message ?? `The server answered ${response.status}.`);
  throw PASSING.has(response.status) ? new Error(message) : new Refused(message);
}

export async function ask(url, accept = "application/dicom+json", signal = undefined) {
  const response = await answer(url, { headers: { Accept: accept }, signal });
  const list = response.status === 204 ? [] : await response.json().catch((error) => {
    throw error instanceof SyntaxError ? new Error("What answers is not the archive.") : error;
  });
  return { list, total: response.headers.get("X-Total-Count") };
}

export async function studyOf(uid) {
  const { list } = await ask(`/studies?StudyInstanceUID=${encodeURIComponent(uid)}&includefield=00081030&limit=1`);
  if (!list.length) throw new Refused("This study is not in the archive.");
  return list[0];
}

export const values = (item, tag) => item?.[tag]?.Value ?? [];
/** A text of one line: no writer of a Data Set begins another one, which would pass for the page's own. */
export const plain = (value) => String(value).replace(/[\p{Cc}\u2028\u2029]+/gu, " ");
export const text = (item, tag) => plain(values(item, tag).filter((value) => value !== null).join(" / "));

const DECIMAL = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i;

/** A value as a number, NaN for what is none: not each blank is 0. */
export const numeric = (value) => (typeof value === "number" || DECIMAL.test(value) ? Number(value) : NaN);

/** The first value as a number; null where there is none. */
export function number(item, tag) {
  const value = numeric(values(item, tag)[0]);
  return Number.isFinite(value) ? value : null;
}

export function person(item, tag) {
  const name = values(item, tag)[0];
  if (!name) return "";
  const shown = (group) => {
    const [family, given, middle, prefix, suffix] = plain(group ?? "").split("^").map((part) => part.trim());
    const first = [given, middle].filter(Boolean).join(" ");
    return [[family, first].filter(Boolean).join(", "), prefix, suffix].filter(Boolean).join(" ");
  };
  return [shown(name.Alphabetic), shown(name.Ideographic)].filter(Boolean).join(" · ");
}

export function date(item, tag) {
  const value = text(item, tag);
  return /^\d{8}$/.test(value) ? `${value.slice(0, 4)}-${value.slice(4, 6)}-${value.slice(6)}` : value;
}

export function time(item, tag) {
  const value = text(item, tag);
  return /^\d{4}/.test(value) ? `${value.slice(0, 2)}:${value.slice(2, 4)}` : "";
}

export const counted = (count, one) => `${count} ${one}${count === 1 || one === "series" ? "" : "s"}`;
