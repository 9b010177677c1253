// What a reader types into the search, as keys of a search (PS3.4 C.2.2.2).

const DATE = String.raw`\d{4}([-./]?)\d{2}\N\d{2}(?!\d)|\d{1,2}\.\d{1,2}\.\d{4}|\d{4}-\d{2}(?!\d)|\d{4}(?!\d)`;
const DATES = new RegExp(`^(${DATE.replace("\\N", "\\2")})?\\s*([-–])?\\s*(${DATE.replace("\\N", "\\5")})?$`);

/** An example of what may be typed, by field. */
export const EXAMPLES = { StudyDate: "2024-05-31, 2024-05, 2024-01-01 – 2024-03-31", ModalitiesInStudy: "CT, MR" };

/** The parameters of a search: words of a name begin any of its words, a text is anywhere, unless there are wildcards. */
export function keysOf(field, term) {
  const typed = term.trim();
  if (field === "StudyDate") return { StudyDate: datesOf(typed) ?? typed };
  if (field === "ModalitiesInStudy") return { ModalitiesInStudy: typed.toUpperCase() };
  if (/[*?]/.test(term)) return { [field]: term };
  // A name as the list writes it, or in any order.
  const words = field === "PatientName" && !/[\^=]/.test(typed) ? typed.split(/[\s,·]+/).filter(Boolean) : [];
  return words.length > 1 ? { PatientName: words.join(" "), fuzzymatching: "true" } : { [field]: `*${typed}*` };
}

/** A day, month or year, or two of them from the first day of the one to the last day of the other; null for others. */
function datesOf(typed) {
  const found = DATES.exec(typed);
  if (!found || !typed) return null;
  const [, from, , between, to] = found;
  if (from && to && !between) return null;
  const [first, last] = between ? [from && daysOf(from)[0], to && daysOf(to)[1]] : daysOf(from ?? to);
  return first === last ? first : `${first ?? ""}-${last ?? ""}`;
}

/** The first and the last day, YYYYMMDD, of what is written as a day, a month or a year. */
function daysOf(written) {
  const parts = written.split(/[-./]/);
  if (parts.length === 3 && parts[2].length === 4) parts.reverse(); // 31.5.2024
  const [year, month, day] = parts.length > 1 || written.length < 8 ? parts : [0, 4, 6].map((at) => written.slice(at, at ? at + 2 : 4));
  const text = (one, other) => `${year}${String(one).padStart(2, "0")}${String(other).padStart(2, "0")}`;
  const end = month ?? 12;
  return [text(month ?? 1, day ?? 1), text(end, day ?? new Date(Date.UTC(year, end, 0)).getUTCDate())];
}
