// What went wrong, in plain words, with what can be done about it.

import { $, el, icon, plain } from "./dom.js";
import { t } from "./words.js";

const IMAGE = "M6 5h12a2.5 2.5 0 0 1 2.5 2.5v9A2.5 2.5 0 0 1 18 19H6a2.5 2.5 0 0 1-2.5-2.5v-9A2.5 2.5 0 0 1 6 5zM4.5 17 9 12.5l3.5 3 3-2.5 4 3.600M2.5 2.5l19 19";
const ICONS = {
  empty: "M10.5 4.5a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM15 15l5 5M8 10.5h5",
  large: IMAGE,
  picture: IMAGE,
  not_picture: IMAGE,
  lost: IMAGE,
  item: IMAGE,
};
const SERVER = "M4.5 4.5h15v6h-15zM4.5 13.5h15v6h-15zM8 7.5h.01M8 16.5h.01M12 7.5h4M12 16.5h4";
const OWN_WORDS = new Set(["usage", "large", "picture", "map", "index", "internal"]); // the server's line tells more

let timer = 0;
let shown = null;

/**
 * Shows trouble; `again` is offered as a button, and tried by itself after `trouble.retry` seconds if that is not 0.
 * `more`: values for the words; `button`: another [label, action].
 */
export function show(trouble, again = null, { more = {}, button = null, words = null } = {}) {
  hide();
  shown = [trouble, again, { more, button, words }];
  const box = $("problem");
  const explained = words ?? (hasWords(`e_${trouble.kind}_do`) ? t(`e_${trouble.kind}_do`, more) : "");
  const children = [icon(ICONS[trouble.kind] ?? SERVER), el("h2", {}, t(`e_${trouble.kind}`))];
  if (explained) children.push(el("p", {}, explained));
  if (trouble.message && OWN_WORDS.has(trouble.kind)) children.push(el("p", { class: "said", lang: "en" }, plain(trouble.message)));
  const buttons = [];
  if (button) buttons.push(el("button", { type: "button", class: "button main", on: { click: button[1] } }, button[0]));
  if (again) buttons.push(el("button", { type: "button", class: `button${button ? "" : " main"}`, on: { click: again } }, t("retry")));
  if (buttons.length) children.push(el("p", { class: "buttons" }, ...buttons));
  box.dataset.kind = trouble.kind;
  box.replaceChildren(...children);
  box.hidden = false;
  if (again && trouble.retry) timer = setTimeout(again, 1000 * trouble.retry);
}

function hasWords(key) {
  try {
    t(key);
    return true;
  } catch {
    return false;
  }
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
