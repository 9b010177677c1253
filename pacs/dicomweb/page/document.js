// Elements of the page. Text of a Data Set reaches the document through textContent alone: its writer may be hostile.

export const VIEWER = document.documentElement.dataset.viewer ?? ""; // where the server has OHIF, if it has

const SECTIONS = ["studies", "study", "viewer"];

export const $ = (id) => document.getElementById(id);

export function make(name, content, properties = {}) {
  const element = Object.assign(document.createElement(name), properties);
  for (const child of [content].flat()) if (child !== undefined && child !== null && child !== "") element.append(child);
  return element;
}

/** Show one section of the page, with the way to it: `crumbs` are [label, address or ""]. */
export function show(section, crumbs) {
  for (const name of SECTIONS) $(name).hidden = name !== section;
  $("trouble").hidden = true;
  $("crumbs").replaceChildren(...crumbs.map(([label, href]) => make("li", href ? make("a", label, { href }) : label)));
  document.title = [...crumbs.map(([label]) => label).reverse(), "pacs"].join(" · ");
}

/** Say what went wrong, and whether to try `again` may help. */
export function complain(message, again) {
  $("problem").textContent = message;
  $("problem").classList.toggle("begun", /^\p{Ll}/u.test(message)); // what is quoted first stays as it was typed
  $("again").hidden = !again;
  $("trouble").hidden = false;
}

/** A counter of page changes: what arrives for an earlier visit is dropped. */
export const visits = {
  count: 0,
  begin() {
    this.count += 1;
    return this.current();
  },
  /** A function that says whether the visit of now still goes on. */
  current() {
    const mine = this.count;
    return () => mine === this.count;
  },
};
