// The page: its address says what is searched for and shown; everything else follows from that.

import * as api from "./api.js";
import * as detail from "./detail.js";
import { $, el, plain } from "./dom.js";
import * as grid from "./grid.js";
import * as map from "./map.js";
import { refuse, suspects, usable } from "./pictures.js";
import * as problem from "./problem.js";
import { PAGE, asks, emptyFilters, emptyQuery, fingerprint, fromAddress, hasFilters, mistake, toAddress } from "./query.js";
import * as refine from "./refine.js";
import { noted } from "./said.js";
import * as settings from "./settings.js";
import { found, say } from "./status.js";
import * as welcome from "./welcome.js";
import { number, t } from "./words.js";

let query = fromAddress(location.search);
let about = null; // what the server says of its index
let answered = null; // { asked: fingerprint, target, more, took }
let searching = null; // AbortController of the search under way
let fetchingMore = false;

// -- the address --------------------------------------------------------------------------------------------------

/** Show another query; `replace` leaves no step for the Back button. */
function go(next, { replace = false, opened = false } = {}) {
  const address = toAddress(next);
  if (!replace) {
    const here = { ...history.state, y: scrollY, count: grid.shown().length };
    history.replaceState(here, "");
    history.pushState({ opened }, "", address);
  } else history.replaceState({ ...history.state, opened }, "", address);
  query = next;
  render();
}

addEventListener("popstate", (event) => {
  query = fromAddress(location.search);
  render(event.state);
});

/** Makes the page what `query` says. `before`: { y, count } of when it was seen last. */
function render(before = null) {
  refine.sync(query, about);
  entitle();
  $("to-map").setAttribute("aria-pressed", String(query.view === "map"));
  document.body.dataset.view = query.view;
  $("results").hidden = query.view === "map";
  if (query.view === "map") map.show(about?.state);
  else map.hide();
  if (answered?.asked !== fingerprint(query)) run(before);
  else if (asks(query)) sayFound();
  else idle();
  if (query.item) openDetail();
  else if (detail.isOpen()) closeDetail();
}

function entitle() {
  document.title = [query.text || (asks(query) ? t("like_title") : ""), "brivl-search"].filter(Boolean).join(" · ");
  $("heading").textContent = document.title;
}

function openDetail() {
  detail.open(query.item, grid.shown().find((hit) => hit.key === query.item));
}

function closeDetail() {
  const key = detail.isOpen() ? detail.key() : "";
  detail.close();
  if (query.view === "map") map.focus();
  else if (key) grid.focus(key);
}

// -- searching ----------------------------------------------------------------------------------------------------

async function run(before = null) {
  searching?.abort();
  const mine = (searching = new AbortController());
  const asked = fingerprint(query);
  problem.hide();
  sayEnd(null);
  if (!asks(query)) return rest(asked);
  const wrong = mistake(query.filters);
  if (wrong) return failed(new api.Trouble("filter", { words: wrong.slice(1) }));
  const began = performance.now();
  const patience = setTimeout(() => {
    say(t("searching"));
    grid.waiting();
    welcome.hide();
  }, 200);
  try {
    const pages = Math.max(1, Math.ceil((before?.count ?? 0) / PAGE)); // as many as were there
    const answer = await api.search(query, 0, Math.min(pages * PAGE, about?.limits.max_k ?? PAGE), mine.signal);
    clearTimeout(patience);
    answered = { asked, target: query.target, more: answer.more, took: performance.now() - began, unknown: answer.unknown_words, fits: answer.fits };
    showHits(answer.hits, before);
    if (!answer.hits.length) nothing(answer.note);
    if (about && answer.state !== about.state) learn(); // the index has changed meanwhile
  } catch (error) {
    clearTimeout(patience);
    if (error.name === "AbortError") return;
    failed(error);
  }
}

function showHits(hits, before) {
  welcome.hide();
  grid.show(hits, query.target);
  map.mark(hits);
  sayFound();
  sayEnd(!answered.more && hits.length >= PAGE ? "end" : null);
  if (query.item) openDetail(); // now with its score and its neighbours
  if (before?.y !== undefined) scrollTo(0, before.y);
  else if (scrollY > $("main").offsetTop) scrollTo(0, 0);
  requestAnimationFrame(() => {
    if (performance.getEntriesByName("asked").length) performance.measure("first results", "asked");
    performance.clearMarks("asked");
    more();
  });
}

const sayFound = () => found(query, grid.shown(), answered.more, answered.took, about, answered.unknown, answered.fits);

let ending = []; // what the line under the last hit says

/** Says `words` under the last hit, null: nothing; `again` is offered as a button. */
function sayEnd(words, values = {}, again = null) {
  ending = [words, values, again];
  $("end").hidden = !words;
  if (words) $("end").replaceChildren(t(words, values), ...(again ? [" ", el("button", { type: "button", class: "plain", on: { click: again } }, t("retry"))] : []));
}

const withoutFilters = ["clear_filters", () => go({ ...query, filters: emptyFilters() })];

/** No hits. `note`: the server's reason, if it gave one. */
function nothing(note) {
  const filtered = hasFilters(query);
  const words = noted(note) ?? (filtered ? ["e_empty_filters", {}] : null);
  problem.show(new api.Trouble("empty", { words }), null, { button: filtered ? withoutFilters : null });
}

const RETRIED = new Set(["gone", "index", "unready", "starting", "busy", "internal"]);

/** Nothing can be shown for `query`. */
async function failed(error) {
  const trouble = error instanceof api.Trouble ? error : new api.Trouble("page", { message: String(error) });
  const asked = query;
  answered = null;
  grid.show([], "images");
  map.mark([]);
  say("");
  welcome.hide();
  refuse(await unusable(trouble));
  if (query !== asked) return;
  refine.sync(query, about);
  let button = null;
  const left = { ...query, terms: query.terms.filter(usable), item: "" };
  if (left.terms.length < query.terms.length) button = [asks(left) ? "drop_terms" : "drop_all", () => go(left, { replace: true })];
  else if (["filter", "no_match", "field", "folder"].includes(trouble.kind)) button = withoutFilters;
  problem.show(trouble, RETRIED.has(trouble.kind) ? retry : null, { limits: limits(), button });
}

/** The terms that a search failed for: pictures that cannot be used, photos that are no longer in the index. */
async function unusable({ kind }) {
  if (kind === "picture" || kind === "large") return suspects(query.terms);
  if (kind !== "item") return [];
  const photos = query.terms.filter((term) => term.kind === "key");
  const gone = await Promise.all(photos.map((term) => api.item(term.value).then(() => false, (error) => error.kind === "item")));
  return photos.filter((_, n) => gone[n]);
}

async function retry() {
  if (!about) await learn();
  if (about) render();
}

const limits = () => ({
  megabytes: number(Math.floor((about?.limits.max_upload_bytes ?? 0) / 1e5) / 10),
  megapixels: number(about?.limits.max_megapixels ?? 0),
});

/** The next hits, when the end of the list comes near. */
async function more() {
  if (!answered?.more || fetchingMore || query.view === "map" || !nearEnd()) return;
  const asked = answered.asked;
  const offset = grid.shown().length;
  const limit = about?.limits.max_k ?? 1000;
  const many = Math.min(PAGE, limit - offset);
  if (many <= 0) return sayEnd("end_limit", { n: number(limit) });
  fetchingMore = true;
  try {
    const answer = await api.search(query, offset, many, searching.signal);
    if (answered?.asked !== asked) return;
    grid.show(answer.hits, query.target, true);
    answered.more = answer.more && answer.hits.length > 0;
    map.mark(grid.shown());
    sayFound();
    sayEnd(answered.more ? null : "end");
  } catch (error) {
    if (error.name === "AbortError" || answered?.asked !== asked) return;
    return sayEnd(`e_${error.kind ?? "page"}`, { ...limits(), ...error.values }, more);
  } finally {
    fetchingMore = false;
  }
  requestAnimationFrame(more);
}

const nearEnd = () => $("more").getBoundingClientRect().top < innerHeight + 900;

/** Nothing is asked for. */
function rest(asked) {
  answered = { asked, target: "images", more: false, took: 0 };
  say("");
  map.mark([]);
  grid.show([], "images");
  idle();
}

/** The start page; on the map, just the map. */
function idle() {
  const wanted = () => !asks(query) && query.view !== "map";
  if (wanted()) welcome.show(about, wanted);
  else welcome.hide();
}

// -- what the other parts ask for ---------------------------------------------------------------------------------

const like = (key) => ({ ...emptyQuery(), filters: query.filters, terms: [{ kind: "key", value: key, weight: 1 }] });
const describe = (key) => ({ ...like(key), target: "texts" });

grid.start({
  open: (hit) => go({ ...query, item: hit.key }, { opened: true }),
  address: (hit) => toAddress({ ...query, item: hit.key }),
});

const beside = (by) => {
  const hits = grid.shown();
  const at = hits.findIndex((hit) => hit.key === query.item);
  return at < 0 ? undefined : hits[at + by];
};

detail.start({
  close: () => (history.state?.opened ? history.back() : go({ ...query, item: "" }, { replace: true })),
  has: (by) => Boolean(beside(by)),
  step: (by) => {
    const hit = beside(by);
    if (hit) go({ ...query, item: hit.key }, { replace: true, opened: Boolean(history.state?.opened) });
  },
  like: (key) => go(like(key)),
  describe: (key) => go(describe(key)),
  likeAddress: (key) => toAddress(like(key)),
  describeAddress: (key) => toAddress(describe(key)),
  hasTexts: () => about?.texts.rows !== 0,
  add: (key, sign) => {
    const others = asks(query) ? {} : { target: "images" };
    if (sign < 0 && !asks(query)) return;
    go({ ...query, ...others, view: "list", item: "", terms: [...query.terms, { kind: "key", value: key, weight: sign }] });
  },
  canSubtract: () => asks(query),
  trouble: (error) => {
    go({ ...query, item: "" }, { replace: true });
    problem.show(error, error.kind === "gone" ? retry : null, { limits: limits(), button: error.kind === "gone" ? null : ["dismiss", problem.hide] });
  },
});

map.start({
  open: (key) => go({ ...query, item: key }, { opened: true }),
  trouble: (error) => {
    map.hide();
    problem.show(RETRIED.has(error.kind) ? error : new api.Trouble("map", { message: error.message }), retry);
  },
});

refine.start({
  query: () => query,
  change: (next, toList = false) => {
    if (fingerprint(next) === fingerprint(query)) {
      answered = null; // Enter again asks again
      return render();
    }
    go(toList && next.view === "map" && next.terms.some((term) => term.kind !== "text") ? { ...next, view: "list" } : next);
  },
  check: (file) => {
    const limit = about?.limits.max_upload_bytes ?? Infinity;
    const wrong = file.type && !file.type.startsWith("image/") ? "not_picture" : file.size > limit ? "large" : null;
    if (wrong) refused(wrong);
    return !wrong;
  },
  unreadable: () => refused("unreadable"),
});

/** A file that is not even tried; what was found before stays. */
function refused(kind) {
  problem.show(new api.Trouble(kind), null, { limits: limits(), button: ["dismiss", problem.hide] });
  scrollTo(0, 0);
}

$("to-map").addEventListener("click", () => go({ ...query, view: query.view === "map" ? "list" : "map", item: "" }));

document.querySelector(".brand").addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(emptyQuery());
  $("text").focus();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || detail.isOpen()) return;
  if (event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  $("text").select();
});

new IntersectionObserver(more, { rootMargin: "900px" }).observe($("more"));

settings.start({
  spoken: () => {
    entitle();
    refine.sync(query, about);
    grid.again();
    problem.again();
    detail.again();
    map.again();
    sayEnd(...ending);
    if (answered && asks(query)) sayFound();
    else if (answered) idle();
  },
  painted: map.redraw,
});

api.onUnauthorized(settings.signIn);

async function learn() {
  try {
    about = await api.about();
    refine.sync(query, about);
    if (answered && asks(query)) sayFound(); // now that it is known of how many
  } catch (error) {
    if (!answered) failed(error);
  }
}

history.scrollRestoration = "manual";
const known = learn();
if (asks(query)) render(history.state);
else refine.sync(query, about);
known.then(() => {
  if (!about) return;
  if (!asks(query)) render();
  else if (query.item) detail.again();
  if (about.damage.length) say(t("damaged", { said: plain(about.damage[0]) }));
});
if (!asks(query) && !query.item && matchMedia("(hover: hover)").matches) $("text").focus();
