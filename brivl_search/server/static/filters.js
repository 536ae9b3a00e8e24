// The panel of filters: what is typed there becomes the query's filters, once it can be meant.

import { $, el, plain } from "./dom.js";
import { asks, canRerank, countFilters, emptyFilters, knowsMatch, mistake } from "./query.js";
import { percent, t } from "./words.js";

const TEXTS = ["under", "glob", "from", "to", "size", "where"];

let handlers = {};

/** Handlers: filters() → those of the query, change(filters). */
export function start(given) {
  handlers = given;
  const panel = $("filters");
  $("filter-button").addEventListener("click", () => open(panel.hidden));
  panel.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    open(false);
    $("filter-button").focus();
  });
  panel.addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  panel.addEventListener("change", apply);
  $("match").addEventListener("input", () => sayMatch(Number($("match").value)));
  $("clear-filters").addEventListener("click", () => {
    for (const name of TEXTS) panel.elements[name].value = ""; // also what is typed and not yet applied
    handlers.change(emptyFilters());
  });
}

function open(wanted) {
  $("filters").hidden = !wanted;
  $("filter-button").setAttribute("aria-expanded", String(wanted));
  if (wanted) $("filters").elements.under.focus();
}

/** Makes the panel say what the query's filters are, and leaves out those that mean nothing to this index. */
export function sync(query, about) {
  const form = $("filters").elements;
  for (const name of TEXTS) {
    form[name].setCustomValidity("");
    if (document.activeElement !== form[name]) form[name].value = query.filters[name];
  }
  form.dedupe.checked = query.filters.dedupe;
  form.rerank.checked = query.filters.rerank;
  form.rerank.disabled = asks(query) && !canRerank(query);
  form.rerank.closest("label").hidden = !about?.matcher && !query.filters.rerank;
  form.match.value = query.filters.match;
  form.match.disabled = asks(query) && !knowsMatch(query);
  form.match.closest("label").hidden = about?.encoder.match === false && !query.filters.match;
  $("match-note").hidden = !form.match.disabled;
  sayMatch(query.filters.match);
  const active = countFilters(query.filters);
  $("filter-count").hidden = !active;
  $("filter-count").textContent = active;
  $("clear-filters").disabled = !active;
  form.where.closest("label").hidden = !about?.fields.length && !query.filters.where;
  if (!about) return;
  $("folders").replaceChildren(...about.roots.map((root) => el("option", { value: root })));
  $("fields").replaceChildren(...about.fields.map((name) => el("option", { value: `${plain(name)}=` })));
  form.where.placeholder = about.fields.length ? `${plain(about.fields[0])}=…` : "";
}

function sayMatch(value) {
  $("match-value").textContent = value ? percent(value / 100) : t("any");
}

function apply() {
  const form = $("filters").elements;
  const filters = emptyFilters();
  for (const name of TEXTS) {
    filters[name] = form[name].value.trim();
    form[name].setCustomValidity("");
  }
  filters.dedupe = form.dedupe.checked;
  filters.rerank = form.rerank.checked;
  filters.match = Number(form.match.value);
  const wrong = mistake(filters);
  if (wrong) {
    const [name, words, values] = wrong;
    form[name].setCustomValidity(t(words, values));
    form[name].reportValidity();
    return;
  }
  if (JSON.stringify(filters) !== JSON.stringify(handlers.filters())) handlers.change(filters);
}
