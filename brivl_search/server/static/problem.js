// What went wrong, in plain words, with what can be done about it.

import { $, el, icon, plain } from "./dom.js";
import { current, hasWords, t } from "./words.js";

const IMAGE = "M6 5h12a2.5 2.5 0 0 1 2.5 2.5v9A2.5 2.5 0 0 1 18 19H6a2.5 2.5 0 0 1-2.5-2.5v-9A2.5 2.5 0 0 1 6 5zM4.5 17 9 12.5l3.5 3 3-2.5 4 3.600M2.5 2.5l19 19";
const SEARCH = "M10.5 4.5a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM15 15l5 5M8 10.5h5";
const ICONS = {
  empty: SEARCH,
  field: SEARCH,
  folder: SEARCH,
  filter: SEARCH,
  no_match: SEARCH,
  cancel: SEARCH,
  terms: SEARCH,
  long: SEARCH,
  usage: SEARCH,
  large: IMAGE,
  picture: IMAGE,
  not_picture: IMAGE,
  unreadable: IMAGE,
  pictures: IMAGE,
  lost: IMAGE,
  item: IMAGE,
};
const SERVER = "M4.5 4.5h15v6h-15zM4.5 13.5h15v6h-15zM8 7.5h.01M8 16.5h.01M12 7.5h4M12 16.5h4";
const ENOUGH = new Set(["busy", "gone", "item", "starting"]); // the server's line adds nothing to the words

let timer = 0;
let shown = null;

/**
 * Shows trouble.
 *
 * @param trouble what went wrong.
 * @param again offered as a button, and tried by itself after `trouble.retry` seconds if that is not 0.
 * @param options.limits values for the words: { megabytes, megapixels }.
 * @param options.button another way out: [key of its label, action].
 */
export function show(trouble, again = null, { limits = {}, button = null } = {}) {
  hide();
  shown = [trouble, again, { limits, button }];
  const box = $("problem");
  const children = [icon(ICONS[trouble.kind] ?? SERVER), el("h2", {}, plain(t(`e_${trouble.kind}`, trouble.values)))];
  const explained = explain(trouble, limits);
  if (explained) children.push(el("p", {}, plain(explained)));
  if (trouble.message && !ENOUGH.has(trouble.kind)) children.push(said(trouble.message));
  const buttons = [];
  if (button) buttons.push([t(button[0]), button[1]]);
  if (again) buttons.push([t("retry"), again]);
  const drawn = buttons.map(([label, act], n) => el("button", { type: "button", class: `button${n ? "" : " main"}`, on: { click: act } }, label));
  if (drawn.length) children.push(el("p", { class: "buttons" }, drawn));
  box.dataset.kind = trouble.kind;
  box.replaceChildren(...children);
  box.hidden = false;
  if (again && trouble.retry) timer = setTimeout(again, 1000 * trouble.retry);
}

/** The line under the heading; "" if there is none. */
function explain({ kind, values, words }, limits) {
  const [key, more] = words ?? [`e_${kind}_do`, values];
  if (!hasWords(key) || more.there?.length === 0) return ""; // nothing that could be named
  return t(key, { ...limits, ...more });
}

/** The server's own line, which is English. */
function said(message) {
  const line = el("span", { lang: "en" }, plain(message));
  return el("p", { class: "said" }, current() === "en" ? null : el("b", {}, t("server_says")), line);
}

export function hide() {
  clearTimeout(timer);
  shown = null;
  $("problem").hidden = true;
  $("problem").replaceChildren();
}

/** Says it again in the language of the page. */
export function again() {
  if (shown) show(...shown);
}
