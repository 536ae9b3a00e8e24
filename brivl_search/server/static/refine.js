// The controls of a search: its words, pictures, further terms, filters and what is to be found.

import { thumbnail } from "./api.js";
import { $, el, icon, plain } from "./dom.js";
import { asks, countFilters, emptyFilters, keepPicture, knowsMatch, mistake, pictures } from "./query.js";
import { current, t } from "./words.js";

const WEIGHTS = [0.25, 0.5, 1, 1.5, 2, 3];
const TEXT_FILTERS = ["under", "glob", "from", "to", "size", "where"];

let handlers = {}; // query() → the one that is shown, change(query), picture(file) → whether it can be used
let sign = 0; // of the term that is being added: 1, -1, or 0 for none
let pickedFor = 0; // 0: to search with it, else the sign of the term it becomes

export function start(given) {
  handlers = given;
  $("search").addEventListener("submit", submit);
  for (const option of document.getElementsByName("target")) {
    option.addEventListener("change", () => handlers.change({ ...handlers.query(), ...words(), target: option.value }));
  }
  $("pick").addEventListener("click", () => pick(0));
  $("term-picture").addEventListener("click", () => pick(sign));
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (file) usePicture(file, pickedFor);
  });
  $("add-plus").addEventListener("click", () => openAdder(sign === 1 ? 0 : 1));
  $("add-minus").addEventListener("click", () => openAdder(sign === -1 ? 0 : -1));
  $("adder").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $("term").value.trim();
    if (value) add({ kind: "text", value, weight: sign });
    else openAdder(0);
  });
  $("adder").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const opener = sign > 0 ? $("add-plus") : $("add-minus");
    openAdder(0);
    opener.focus();
  });
  $("filter-button").addEventListener("click", () => openFilters($("filters").hidden));
  $("filters").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    openFilters(false);
    $("filter-button").focus();
  });
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    applyFilters();
  });
  $("filters").addEventListener("change", applyFilters);
  $("match").addEventListener("input", () => sayMatch(Number($("match").value)));
  $("clear-filters").addEventListener("click", () => handlers.change({ ...handlers.query(), filters: emptyFilters() }));
  dropAndPaste();
}

const words = () => ({ text: $("text").value.trim() });

function submit(event) {
  event.preventDefault();
  const next = { ...handlers.query(), ...words(), item: "" };
  if (!asks(next)) return $("text").focus();
  performance.mark("asked");
  handlers.change(next, true);
}

/** Makes the controls say what `query` is. */
export function sync(query, about) {
  if (document.activeElement !== $("text") || $("text").value.trim() !== query.text) $("text").value = query.text;
  $("text").placeholder = t(query.terms.length ? "placeholder_add" : "placeholder");
  for (const option of document.getElementsByName("target")) {
    option.checked = option.value === query.target;
    option.disabled = option.value === "texts" && about?.texts.rows === 0 && query.target !== "texts";
    option.parentElement.title = option.disabled ? t("e_no_texts") : "";
  }
  syncChips(query);
  const asked = asks(query);
  for (const id of ["add-plus", "add-minus"]) $(id).hidden = !asked;
  if (!asked) openAdder(0);
  syncFilters(query, about);
}

// -- further terms ------------------------------------------------------------------------------------------------

function syncChips(query) {
  const focused = document.activeElement?.closest?.("#chips [data-at]");
  const [at, part] = focused ? [focused.dataset.at, document.activeElement.dataset.part] : [];
  $("chips").hidden = !query.terms.length;
  $("chips").replaceChildren(...query.terms.map((term, n) => chip(query, term, n)));
  if (focused) $("chips").querySelector(`[data-at="${at}"] [data-part="${part}"]`)?.focus();
}

function chip(query, term, n) {
  const plus = term.weight > 0;
  const name = term.kind === "text" ? plain(term.value) : t("picture");
  const changed = (weight) => query.terms.map((one, i) => (i === n ? { ...one, weight } : one));
  const change = (terms) => handlers.change({ ...query, terms, item: "" });
  const flipped = { ...query, terms: changed(-term.weight) };
  const size = Math.abs(term.weight);
  const weights = WEIGHTS.includes(size) ? WEIGHTS : [...WEIGHTS, size].sort((a, b) => a - b);
  return el(
    "li",
    { class: `chip ${plus ? "plus" : "minus"} ${term.kind}`, "data-at": n },
    el("button", { type: "button", class: "sign", "data-part": "sign", disabled: !asks(flipped), "aria-label": t(plus ? "flip_plus" : "flip_minus", { name }), title: t(plus ? "flip_plus" : "flip_minus", { name }), on: { click: () => change(flipped.terms) } }, plus ? "+" : "−"),
    term.kind === "text" ? el("span", { class: "name", dir: "auto" }, name) : chipPicture(term, name),
    el(
      "select",
      { "data-part": "weight", "aria-label": t("weight", { name }), on: { change: (event) => change(changed(Math.sign(term.weight) * Number(event.target.value))) } },
      weights.map((one) => el("option", { value: one, selected: one === size }, `×${one}`)),
    ),
    el("button", { type: "button", class: "remove", "data-part": "remove", "aria-label": t("remove", { name }), title: t("remove", { name }), on: { click: () => remove(query, n) } }, icon("m7 7 10 10M17 7 7 17")),
  );
}

function chipPicture(term, name) {
  const url = term.kind === "key" ? thumbnail(term.value, 128) : pictures.get(term.value)?.url;
  return url ? el("img", { alt: name, src: url }) : el("span", { class: "name" }, name);
}

function remove(query, n) {
  handlers.change({ ...query, terms: query.terms.filter((_, i) => i !== n), item: "" });
  ($("chips").querySelectorAll(".remove")[Math.max(0, n - 1)] ?? $("text")).focus();
}

/** Another term for the query that is shown. */
export function add(term) {
  const query = handlers.query();
  openAdder(0);
  handlers.change({ ...query, ...words(), terms: [...query.terms, term], item: "" }, true);
}

function openAdder(wanted) {
  sign = wanted;
  $("adder").hidden = !sign;
  $("add-plus").setAttribute("aria-expanded", String(sign === 1));
  $("add-minus").setAttribute("aria-expanded", String(sign === -1));
  if (!sign) return;
  $("term-label").textContent = t(sign > 0 ? "plus_label" : "minus_label");
  $("term").value = "";
  $("term").focus();
}

// -- pictures -----------------------------------------------------------------------------------------------------

function pick(what) {
  pickedFor = what;
  $("file").click();
}

function usePicture(file, as = 0) {
  if (!handlers.picture(file)) return;
  const term = { kind: "picture", value: keepPicture(file), weight: as || 1 };
  if (as) return add(term);
  performance.mark("asked");
  handlers.change({ ...handlers.query(), text: "", terms: [term], item: "" }, true);
}

function dropAndPaste() {
  let own = false; // a picture of this page that is dragged about is not meant
  let depth = 0;
  const carries = (event) => !own && [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragstart", () => (own = true));
  document.addEventListener("dragend", () => (own = false));
  document.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth++;
    $("drop").hidden = false;
  });
  document.addEventListener("dragover", (event) => {
    if (carries(event)) event.preventDefault();
  });
  document.addEventListener("dragleave", (event) => {
    if (carries(event) && --depth <= 0) {
      depth = 0;
      $("drop").hidden = true;
    }
  });
  document.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    $("drop").hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) usePicture(file);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    usePicture(file);
  });
}

// -- filters ------------------------------------------------------------------------------------------------------

function openFilters(open) {
  $("filters").hidden = !open;
  $("filter-button").setAttribute("aria-expanded", String(open));
  if (open) $("filters").elements.under.focus();
}

function syncFilters(query, about) {
  const form = $("filters").elements;
  for (const name of TEXT_FILTERS) {
    if (document.activeElement !== form[name]) form[name].value = query.filters[name];
  }
  form.dedupe.checked = query.filters.dedupe;
  form.match.value = query.filters.match;
  form.match.disabled = (asks(query) && !knowsMatch(query)) || about?.encoder.match === false;
  $("match-note").hidden = !form.match.disabled;
  sayMatch(query.filters.match);
  const active = countFilters(query.filters);
  $("filter-count").hidden = !active;
  $("filter-count").textContent = active;
  $("clear-filters").disabled = !active;
  if (about) {
    $("folders").replaceChildren(...about.roots.map((root) => el("option", { value: root })));
    form.where.placeholder = about.fields.length ? `${plain(about.fields[0])}=…` : "split=test";
  }
}

function sayMatch(value) {
  $("match-value").textContent = value ? new Intl.NumberFormat(current(), { style: "percent" }).format(value / 100) : t("any");
}

function applyFilters() {
  const form = $("filters").elements;
  const filters = emptyFilters();
  for (const name of TEXT_FILTERS) {
    filters[name] = form[name].value.trim();
    form[name].setCustomValidity("");
  }
  filters.dedupe = form.dedupe.checked;
  filters.match = Number(form.match.value);
  const wrong = mistake(filters);
  if (wrong) {
    form[wrong[0]].setCustomValidity(t(wrong[1], filters));
    form[wrong[0]].reportValidity();
    return;
  }
  const query = handlers.query();
  if (JSON.stringify(filters) !== JSON.stringify(query.filters)) handlers.change({ ...query, filters, item: "" });
}
