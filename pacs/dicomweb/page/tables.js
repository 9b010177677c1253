// Modality and VOI look-up tables (PS3.3 C.11.1, C.11.2), as the server's own pictures have them (pacs/rendering).

import { number, numeric } from "./dicom.js";

const TABLES = ["00283000", "00283010"]; // Modality LUT Sequence, VOI LUT Sequence
const DESCRIPTOR = "00283002", DATA = "00283006";
const read = new WeakMap(); // item -> table, or null

/** Whether a table has to be fetched from elsewhere. */
export const isRemote = (attributes) => TABLES.some((tag) => attributes[tag]?.BulkDataURI || itemOf(attributes, tag)?.[DATA]?.BulkDataURI);

const itemOf = (attributes, tag) => attributes[tag]?.Value?.[0];

export const modalityTable = (attributes) => tableOf(attributes, TABLES[0]);
export const voiTable = (attributes) => tableOf(attributes, TABLES[1]);

/** The table of a sequence's first item: { first, bits, data }; null for none, and where it does not fit. */
function tableOf(attributes, tag) {
  const item = itemOf(attributes, tag);
  if (!item) return null;
  if (!read.has(item)) read.set(item, tableIn(item, attributes));
  return read.get(item);
}

function tableIn(item, attributes) {
  const [described, least, bits] = (item[DESCRIPTOR]?.Value ?? []).map(numeric);
  const entries = (described & 0xffff) || 65536;
  const signed = number(attributes, "00280103") === 1 || (number(attributes, "00281052") ?? 0) < 0;
  const first = signed && least > 32767 ? least - 65536 : least;
  if (!(bits >= 1 && bits <= 16 && Math.abs(first) <= 65536)) return null;
  const data = wordsOf(item[DATA] ?? {}, entries);
  return data && data.length >= entries ? { first, bits, data: data.subarray(0, entries) } : null;
}

/** 16-bit words, or bytes where there are just as many as entries. PS3.3 C.7.6.3.1.6 */
function wordsOf(element, entries) {
  if (element.Value) return Uint16Array.from(element.Value, Number);
  if (!element.InlineBinary) return null;
  const bytes = Uint8Array.from(atob(element.InlineBinary), (character) => character.charCodeAt(0));
  if (bytes.length < 2 * entries) return Uint16Array.from(bytes);
  return Uint16Array.from({ length: bytes.length >> 1 }, (_, at) => bytes[2 * at] | (bytes[2 * at + 1] << 8));
}

/** What lies below the first entry gets that one, above the last the last. PS3.3 C.11.1.1.1 */
export function lookUp({ first, data }, value) {
  return data[Math.min(data.length - 1, Math.max(0, Math.round(value) - first))];
}
