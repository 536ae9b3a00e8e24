// The controls of a search: its words and what is to be found; its terms, pictures and filters have modules of their own.

import * as chips from "./chips.js";
import { $ } from "./dom.js";
import * as drops from "./drops.js";
import * as filters from "./filters.js";
import { usable } from "./pictures.js";
import { asks } from "./query.js";
import { t } from "./words.js";

const narrow = matchMedia("(max-width: 40rem)");

let handlers = {};

/** Handlers: query() → the one that is shown, change(query, toList), check(file), unreadable(): see app.js. */
export function start(given) {
  handlers = given;
  $("search").addEventListener("submit", submit);
  for (const option of document.getElementsByName("target")) {
    option.addEventListener("change", () => handlers.change({ ...handlers.query(), ...words(), target: option.value }));
  }
  $("pick").addEventListener("click", () => drops.pick(0));
  chips.start({ change: (terms) => handlers.change({ ...handlers.query(), terms, item: "" }), add, pick: drops.pick });
  filters.start({ filters: () => handlers.query().filters, change: (wanted) => handlers.change({ ...handlers.query(), filters: wanted, item: "" }) });
  narrow.addEventListener("change", sayPlaceholder);
  drops.start({ check: handlers.check, unreadable: handlers.unreadable, use: usePicture });
}

/** Makes the controls say what `query` is. `about`: what the server says of its index, null as long as it has not. */
export function sync(query, about) {
  if (document.activeElement !== $("text") || $("text").value.trim() !== query.text) $("text").value = query.text;
  sayPlaceholder();
  for (const option of document.getElementsByName("target")) option.checked = option.value === query.target;
  $("target").hidden = about?.texts.rows === 0 && query.target === "images"; // there is nothing to choose
  chips.sync(query);
  filters.sync(query, about);
}

function sayPlaceholder() {
  $("text").placeholder = t(handlers.query().terms.length ? "placeholder_add" : narrow.matches ? "placeholder_short" : "placeholder");
}

const words = () => ({ text: $("text").value.trim() });

function submit(event) {
  event.preventDefault();
  const query = handlers.query();
  const next = { ...query, ...words(), terms: query.terms.filter(usable), item: "" };
  if (!asks(next)) return $("text").focus();
  performance.mark("asked");
  handlers.change(next, true);
}

/** Another term for the query that is shown. */
function add(term) {
  const query = handlers.query();
  chips.openAdder(0);
  handlers.change({ ...query, ...words(), terms: [...query.terms.filter(usable), term], item: "" }, true);
}

/** A picture as a term of its own `sign`, or alone with sign 0. */
function usePicture(name, sign) {
  const term = { kind: "picture", value: name, weight: sign || 1 };
  if (sign) return add(term);
  performance.mark("asked");
  handlers.change({ ...handlers.query(), text: "", terms: [term], item: "" }, true);
}
