// The further terms of a search as chips: each is turned, weighed or removed; a small form adds one.

import { thumbnail } from "./api.js";
import { $, el, icon, plain } from "./dom.js";
import { keptAs, usable } from "./pictures.js";
import { asks } from "./query.js";
import { t } from "./words.js";

const WEIGHTS = [0.25, 0.5, 1, 1.5, 2, 3];
const CROSS = "m7 7 10 10M17 7 7 17";
const BROKEN = "M6 5h12a2.5 2.5 0 0 1 2.5 2.5v9A2.5 2.5 0 0 1 18 19H6a2.5 2.5 0 0 1-2.5-2.5v-9A2.5 2.5 0 0 1 6 5zM3 3l18 18";

let handlers = {};
let sign = 0; // of the term that is being added: 1, -1, or 0 for none

/** Handlers: change(terms), add(term), pick(sign). */
export function start(given) {
  handlers = given;
  $("term-picture").addEventListener("click", () => handlers.pick(sign));
  $("add-plus").addEventListener("click", () => openAdder(sign === 1 ? 0 : 1));
  $("add-minus").addEventListener("click", () => openAdder(sign === -1 ? 0 : -1));
  $("adder").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $("term").value.trim();
    if (value) handlers.add({ kind: "text", value, weight: sign });
    else openAdder(0);
  });
  $("adder").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const opener = sign > 0 ? $("add-plus") : $("add-minus");
    openAdder(0);
    opener.focus();
  });
}

/** Makes the chips say what the query's terms are; what has the focus keeps it. */
export function sync(query) {
  const focused = document.activeElement?.closest?.("#chips [data-at]");
  const [at, part] = focused ? [focused.dataset.at, document.activeElement.dataset.part] : [];
  $("chips").hidden = !query.terms.length;
  $("chips").replaceChildren(...query.terms.map((term, n) => chip(query, term, n)));
  if (focused) $("chips").querySelector(`[data-at="${at}"] [data-part="${part}"]`)?.focus();
  const asked = asks(query);
  for (const id of ["add-plus", "add-minus"]) $(id).hidden = !asked;
  if (!asked) openAdder(0);
  else if (sign) $("term-label").textContent = t(sign > 0 ? "plus_label" : "minus_label");
}

function chip(query, term, n) {
  const plus = term.weight > 0;
  const bad = !usable(term);
  const name = nameOf(term);
  const changed = (weight) => query.terms.map((one, i) => (i === n ? { ...one, weight } : one));
  const flipped = changed(-term.weight);
  const size = Math.abs(term.weight);
  const weights = WEIGHTS.includes(size) ? WEIGHTS : [...WEIGHTS, size].sort((a, b) => a - b);
  const button = (part, label, more, act, ...inside) =>
    el("button", { type: "button", class: part, "data-part": part, "aria-label": label, title: label, ...more, on: { click: act } }, ...inside);
  return el(
    "li",
    { class: `chip ${plus ? "plus" : "minus"} ${term.kind}${bad ? " bad" : ""}`, title: bad ? t("picture_bad") : null, "data-at": n },
    button("sign", t(plus ? "flip_plus" : "flip_minus", { name }), { disabled: bad || !asks({ ...query, terms: flipped }) }, () => handlers.change(flipped), plus ? "+" : "−"),
    bad ? broken(term) : term.kind === "text" ? el("span", { class: "name", dir: "auto" }, name) : picture(term),
    bad
      ? el("span", { class: "hidden" }, t("picture_bad"))
      : el(
          "select",
          { "data-part": "weight", "aria-label": t("weight", { name }), on: { change: (event) => handlers.change(changed(Math.sign(term.weight) * Number(event.target.value))) } },
          weights.map((one) => el("option", { value: one, selected: one === size }, `×${one}`)),
        ),
    button("remove", t("remove", { name }), {}, () => remove(query, n), icon(CROSS)),
  );
}

const nameOf = (term) => plain(term.kind === "text" ? term.value : keptAs(term.value)?.name || t("picture"));

/** A picture, or its name where the browser has none to show. */
function picture(term) {
  const source = term.kind === "key" ? thumbnail(term.value, 128) : keptAs(term.value).url;
  const image = el("img", { alt: nameOf(term), src: source, on: { error: () => image.replaceWith(...broken(term)) } });
  return image;
}

const broken = (term) => [icon(BROKEN), el("span", { class: "name", dir: "auto" }, nameOf(term))];

function remove(query, n) {
  handlers.change(query.terms.filter((_, i) => i !== n));
  ($("chips").querySelectorAll(".remove")[Math.max(0, n - 1)] ?? $("text")).focus();
}

/** Opens the form for a term that counts for (1) or against (-1); 0 closes it. */
export function openAdder(wanted) {
  sign = wanted;
  $("adder").hidden = !sign;
  $("add-plus").setAttribute("aria-expanded", String(sign === 1));
  $("add-minus").setAttribute("aria-expanded", String(sign === -1));
  if (!sign) return;
  $("term-label").textContent = t(sign > 0 ? "plus_label" : "minus_label");
  $("term").value = "";
  $("term").focus();
}
