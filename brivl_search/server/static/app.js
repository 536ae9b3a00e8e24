// The page: its address says what is searched for and shown; everything else follows from that.

import * as api from "./api.js";
import * as detail from "./detail.js";
import { $, el, plain } from "./dom.js";
import * as grid from "./grid.js";
import * as map from "./map.js";
import * as problem from "./problem.js";
import { PAGE, asks, emptyFilters, emptyQuery, fingerprint, fromAddress, hasFilters, toAddress } from "./query.js";
import * as refine from "./refine.js";
import * as settings from "./settings.js";
import { number, t } from "./words.js";

const SAMPLE = 24; // photos on the start page

let query = fromAddress(location.search);
let about = null; // what the server says of its index
let answered = null; // { asked: fingerprint, target, more, took }
let searching = null; // AbortController of the search under way
let fetchingMore = false;
let sample = null; // keys of the photos on the start page

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
  document.title = [query.text || (asks(query) ? t("like_title") : ""), "brivl-search"].filter(Boolean).join(" · ");
  $("heading").textContent = document.title;
  $("to-map").setAttribute("aria-pressed", String(query.view === "map"));
  document.body.dataset.view = query.view;
  $("results").hidden = query.view === "map";
  if (query.view === "map") map.show(about?.generation);
  else map.hide();
  if (answered?.asked !== fingerprint(query)) run(before);
  else if (query.view === "map" || !asks(query)) welcome();
  if (query.item) openDetail();
  else if (detail.isOpen()) closeDetail();
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
  $("end").hidden = true;
  $("end").textContent = t("end");
  if (!asks(query)) return rest(asked);
  const began = performance.now();
  const patience = setTimeout(() => {
    say(t("searching"));
    grid.waiting();
    $("welcome").hidden = true;
  }, 200);
  try {
    const many = Math.min(before?.count || PAGE, about?.limits.max_k ?? PAGE);
    const answer = await api.search(query, 0, Math.max(many, PAGE), mine.signal);
    clearTimeout(patience);
    answered = { asked, target: query.target, more: answer.more, took: performance.now() - began };
    showHits(answer.hits, before);
    if (about && answer.generation !== about.generation) learn(); // the index has changed meanwhile
  } catch (error) {
    clearTimeout(patience);
    if (error.name === "AbortError") return;
    failed(error);
  }
}

function showHits(hits, before) {
  $("welcome").hidden = true;
  $("grid-title").hidden = true;
  grid.show(hits, query.target);
  map.mark(hits);
  sayFound();
  if (query.item) openDetail(); // now with its score and its neighbours
  if (before?.y !== undefined) scrollTo(0, before.y);
  else if (scrollY > $("main").offsetTop) scrollTo(0, 0);
  if (!hits.length) nothing();
  requestAnimationFrame(() => {
    if (performance.getEntriesByName("asked").length) performance.measure("first results", "asked");
    performance.clearMarks("asked");
    more();
  });
}

function sayFound() {
  const n = grid.shown().length;
  say(n ? t(answered.more ? "found_more" : "found", { n: number(n), ms: number(Math.round(answered.took)) }) : "");
  $("end").hidden = !n || answered.more || n < PAGE;
}

function say(words) {
  $("status").textContent = words;
}

function nothing() {
  const filtered = hasFilters(query);
  problem.show(new api.Trouble("empty"), null, {
    words: filtered ? t("e_empty_filters") : null,
    button: filtered ? [t("clear_filters"), () => go({ ...query, filters: emptyFilters() })] : null,
  });
}

function failed(error) {
  const trouble = error instanceof api.Trouble ? error : new api.Trouble("internal", String(error));
  answered = null;
  grid.show([], "images");
  map.mark([]);
  say("");
  $("welcome").hidden = true;
  $("grid-title").hidden = true;
  if (trouble.kind === "usage" && query.target === "texts" && about?.texts.rows === 0) trouble.kind = "no_texts";
  const again = ["gone", "index", "busy", "internal"].includes(trouble.kind) ? retry : null;
  problem.show(trouble, again, { more: { megabytes: megabytes() } });
}

async function retry() {
  if (!about) await learn();
  if (about) render();
}

const megabytes = () => number(Math.floor((about?.limits.max_upload_bytes ?? 0) / 1e6));

/** The next hits, when the end of the list comes near. */
async function more() {
  if (!answered?.more || fetchingMore || query.view === "map" || !nearEnd()) return;
  const asked = answered.asked;
  const offset = grid.shown().length;
  const limit = about?.limits.max_k ?? 1000;
  const many = Math.min(PAGE, limit - offset);
  if (many <= 0) {
    $("end").textContent = t("end_limit", { n: number(limit) });
    $("end").hidden = false;
    return;
  }
  fetchingMore = true;
  try {
    const answer = await api.search(query, offset, many, searching.signal);
    if (answered?.asked !== asked) return;
    grid.show(answer.hits, query.target, true);
    answered.more = answer.more && answer.hits.length > 0;
    map.mark(grid.shown());
    sayFound();
  } catch (error) {
    if (error.name === "AbortError" || answered?.asked !== asked) return;
    const again = el("button", { type: "button", class: "plain", on: { click: () => more() } }, t("retry"));
    $("end").replaceChildren(t(`e_${error.kind ?? "internal"}`), " ", again);
    $("end").hidden = false;
    return;
  } finally {
    fetchingMore = false;
  }
  requestAnimationFrame(more);
}

const nearEnd = () => $("more").getBoundingClientRect().top < innerHeight + 900;

// -- the start page -----------------------------------------------------------------------------------------------

function rest(asked) {
  answered = { asked, target: "images", more: false, took: 0 };
  say("");
  map.mark([]);
  grid.show([], "images");
  welcome();
}

async function welcome() {
  if (asks(query) || query.view === "map") {
    $("welcome").hidden = true;
    return;
  }
  $("welcome").hidden = false;
  if (!about) return;
  const counts = { images: number(about.images.rows), texts: number(about.texts.rows) };
  $("collection").textContent = t(about.texts.rows ? "collection_texts" : "collection", counts);
  try {
    sample ??= pickSome((await api.map()).keys);
  } catch {
    return; // the photos here are a welcome, nothing more
  }
  if (asks(query) || query.view === "map" || !sample.length) return;
  $("grid-title").textContent = t("some");
  $("grid-title").hidden = false;
  grid.show(sample.map((key) => ({ key, image_key: key, path: "" })), "squares");
}

/** Some of the keys, others at each visit. */
function pickSome(keys) {
  const rest = [...keys];
  const some = [];
  while (some.length < SAMPLE && rest.length) some.push(...rest.splice(Math.floor(Math.random() * rest.length), 1));
  return some;
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
    problem.show(error, error.kind === "gone" ? retry : null, { more: { megabytes: megabytes() } });
  },
});

map.start({
  open: (key) => go({ ...query, item: key }, { opened: true }),
  trouble: (error) => {
    const trouble = error.kind === "gone" || error.kind === "index" ? error : new api.Trouble("map", error.message);
    map.hide();
    problem.show(trouble, retry);
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
  picture: (file) => {
    const limit = about?.limits.max_upload_bytes ?? Infinity;
    const wrong = file.type && !file.type.startsWith("image/") ? "not_picture" : file.size > limit ? "large" : null;
    if (wrong) {
      problem.show(new api.Trouble(wrong), null, { more: { megabytes: megabytes() } });
      scrollTo(0, 0);
    }
    return !wrong;
  },
});

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
    refine.sync(query, about);
    grid.again();
    problem.again();
    detail.again();
    map.redraw();
    if (answered && asks(query)) sayFound();
    else welcome();
  },
  painted: map.redraw,
});

api.onUnauthorized(settings.signIn);

async function learn() {
  try {
    about = await api.about();
    refine.sync(query, about);
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
  if (about.damage.length) say(plain(about.damage[0]));
});
if (!asks(query) && !query.item && matchMedia("(hover: hover)").matches) $("text").focus();
