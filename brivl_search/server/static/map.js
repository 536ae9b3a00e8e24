// The map of the collection: photos near those that look alike, on a canvas that is dragged, zoomed and walked by keys.

import { Trouble, item, map as fetchMap, thumbnail } from "./api.js";
import { $, baseName, plain, settled } from "./dom.js";
import { View } from "./map_view.js";
import { inOrder, number, t } from "./words.js";

const FETCHES = 8; // thumbnails under way at once
const KEPT = 1500; // thumbnails in memory
const AGAIN = 10_000; // milliseconds before one that failed is asked for again

const canvas = $("canvas");
const pen = canvas.getContext("2d");

let handlers = { open: () => {}, trouble: () => {} };
let view = null;
let keys = [];
let total = 0; // photos in the index; of very many the map shows a part
let numbers = new Map(); // key → point
let placed = [];
let placedFor = "";
let marked = []; // points of the hits of the search
let chosen = -1; // by the keyboard
let hovered = -1;
let visible = false;
let fetching = false;
let loaded = ""; // state of the index that it is of
let drawing = 0;
const thumbnails = new Map(); // key → { image, state: "coming" | "there" | "gone" }
let coming = 0;
let markedKeys = [];

/** `open(key)` for a click or Enter; `trouble(error)` when the map cannot be had. */
export function start(given) {
  handlers = given;
  new ResizeObserver(resize).observe($("map"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  canvas.addEventListener("wheel", wheel, { passive: false });
  for (const kind of ["pointerdown", "wheel", "keydown"]) {
    canvas.addEventListener(kind, () => $("map").classList.add("used"), { passive: true }); // its help may go
  }
  for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) canvas.addEventListener(kind, pointer);
  canvas.addEventListener("pointerleave", () => hover(-1));
  canvas.addEventListener("keydown", key);
  canvas.addEventListener("focus", redraw);
  canvas.addEventListener("blur", redraw);
  $("zoom-in").addEventListener("click", () => zoom(1.6));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
  $("zoom-all").addEventListener("click", home);
}

/** Shows the map, laid out anew if the index has another state than the one it is of. */
export async function show(state) {
  visible = true;
  $("map").hidden = false;
  if (fetching) return;
  if (view && (!state || state === loaded)) return resize();
  fetching = true;
  say(t("map_loading"));
  $("map").classList.add("loading");
  try {
    const answer = await fetchMap();
    if (!answer.keys.length) throw new Trouble("map");
    loaded = answer.state;
    keys = answer.keys;
    numbers = new Map(keys.map((one, n) => [one, n]));
    const zoomed = view;
    view = new View(answer.x, answer.y);
    if (zoomed) [view.zoom, view.centre] = [zoomed.zoom, zoomed.centre];
    placedFor = "";
    chosen = hovered = -1;
    total = answer.total;
    again();
    say("");
    resize();
  } catch (error) {
    handlers.trouble(error);
  } finally {
    fetching = false;
    $("map").classList.remove("loading");
  }
}

/** Says it again in the language of the page. */
export function again() {
  $("map-part").textContent = total > keys.length ? t("map_part", { n: number(keys.length), all: number(total) }) : "";
  canvas.setAttribute("aria-label", t("map_canvas", { n: number(keys.length) }));
  redraw();
}

export function hide() {
  visible = false;
  $("map").hidden = true;
  hover(-1);
}

/** Rings around the hits of the search that is shown. */
export function mark(hits) {
  markedKeys = hits.map((hit) => hit.image_key).filter(Boolean);
  remark();
}

function remark() {
  marked = markedKeys.map((one) => numbers.get(one)).filter((n) => n !== undefined);
  placedFor = "";
  redraw();
}

export function focus() {
  canvas.focus();
}

/** Where on the canvas the n-th photo that is shown lies: [x, y]. */
export const seenAt = (n) => view.at(seen()[n]);

function resize() {
  if (!visible || !view) return;
  const box = $("map").getBoundingClientRect();
  if (!box.width || !box.height) return;
  const dense = window.devicePixelRatio || 1;
  [view.width, view.height] = [box.width, box.height];
  canvas.width = Math.round(box.width * dense);
  canvas.height = Math.round(box.height * dense);
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  remark();
}

export function redraw() {
  if (!drawing && visible && view) drawing = requestAnimationFrame(draw);
}

function draw() {
  drawing = 0;
  const colours = getComputedStyle(canvas);
  const ink = colours.getPropertyValue("--map-dot");
  const accent = colours.getPropertyValue("--map-mark");
  const card = colours.getPropertyValue("--map-card");
  const layout = `${view.zoom} ${view.width} ${view.height}`;
  if (layout !== placedFor) {
    placed = view.place(marked);
    placedFor = layout;
  }
  pen.clearRect(0, 0, view.width, view.height);
  const hits = new Set(marked);
  dots(ink, hits.size ? 0.35 : 0.6, (n) => !hits.has(n), 1.6 + Math.min(Math.log2(view.zoom), 3) / 2);
  dots(accent, 1, (n) => hits.has(n), 3.5);
  const wanted = [];
  for (const n of placed) {
    if (!view.inside(n, view.side)) continue;
    const [x, y] = view.at(n);
    const picture = thumbnails.get(keys[n]);
    if (!picture) wanted.push(keys[n]);
    else touch(keys[n], picture);
    const faded = hits.size && !hits.has(n);
    tile(picture, x, y, view.side - 8, card, hits.has(n) ? accent : null, faded ? 0.45 : 1);
  }
  for (const [n, width] of [[hovered, 2], [chosen, 3]]) {
    if (n < 0 || (n === chosen && document.activeElement !== canvas)) continue;
    const [x, y] = view.at(n);
    const picture = thumbnails.get(keys[n]);
    if (!picture) wanted.unshift(keys[n]);
    tile(picture, x, y, view.side + 14, card, accent, 1, width);
  }
  load(wanted);
}

function dots(colour, alpha, test, radius) {
  pen.fillStyle = colour;
  pen.globalAlpha = alpha;
  pen.beginPath();
  for (let n = 0; n < keys.length; n++) {
    if (!test(n) || !view.inside(n, 4)) continue;
    const [x, y] = view.at(n);
    pen.moveTo(x + radius, y);
    pen.arc(x, y, radius, 0, 7);
  }
  pen.fill();
  pen.globalAlpha = 1;
}

function tile(picture, x, y, side, card, ring, alpha, width = 2.5) {
  const there = picture?.state === "there";
  const { naturalWidth: w, naturalHeight: h } = there ? picture.image : { naturalWidth: 1, naturalHeight: 1 };
  const wide = there ? side * Math.min(1, w / h) : 6;
  const high = there ? side * Math.min(1, h / w) : 6;
  if (!there && !ring) return; // its dot is there
  pen.save();
  pen.beginPath();
  pen.roundRect(x - wide / 2, y - high / 2, wide, high, there ? 5 : 3);
  if (ring) {
    pen.lineWidth = 2 * width;
    pen.strokeStyle = ring;
    pen.stroke();
  }
  pen.fillStyle = card;
  pen.fill();
  if (there) {
    pen.clip();
    pen.globalAlpha = alpha;
    pen.drawImage(picture.image, x - wide / 2, y - high / 2, wide, high);
  }
  pen.restore();
}

function touch(name, picture) {
  thumbnails.delete(name);
  thumbnails.set(name, picture); // the first ones of a Map are the oldest
}

function load(wanted) {
  for (const name of wanted) {
    if (coming >= FETCHES) return; // each arrival draws anew, and what is wanted then comes next
    const image = new Image();
    const picture = { image, state: "coming" };
    const done = (state) => {
      picture.state = state;
      coming--;
      redraw();
    };
    image.onload = () => done("there");
    image.onerror = () => {
      done("gone");
      setTimeout(() => thumbnails.delete(name), AGAIN);
    };
    coming++;
    thumbnails.set(name, picture);
    image.src = thumbnail(name, 128);
  }
  for (const name of thumbnails.keys()) {
    if (thumbnails.size <= KEPT) break;
    if (thumbnails.get(name).state !== "coming") thumbnails.delete(name);
  }
}

// -- moving about -------------------------------------------------------------------------------------------------

function zoom(factor, x, y) {
  view?.zoomBy(factor, x, y);
  hover(-1);
  redraw();
}

function home() {
  view?.home();
  redraw();
}

function wheel(event) {
  event.preventDefault();
  const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
  zoom(2 ** (-Math.max(-240, Math.min(240, event.deltaY * lines)) / 200), event.offsetX, event.offsetY);
}

const down = new Map(); // pointers on the canvas: id → { x, y }
let moved = 0;

function pointer(event) {
  if (!view) return;
  const here = { x: event.offsetX, y: event.offsetY };
  if (event.type === "pointerdown") {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, here);
    if (down.size === 1) moved = 0;
    hover(-1);
  } else if (event.type === "pointermove") {
    const before = down.get(event.pointerId);
    if (!before) return event.pointerType === "mouse" ? hover(view.under(here.x, here.y, seen()), here) : undefined;
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const spread = (a) => Math.hypot(a.x - other.x, a.y - other.y) || 1;
      view.zoomBy(spread(here) / spread(before), (here.x + other.x) / 2, (here.y + other.y) / 2);
      moved = Infinity;
    } else view.pan(here.x - before.x, here.y - before.y);
    moved += Math.hypot(here.x - before.x, here.y - before.y);
    down.set(event.pointerId, here);
    redraw();
  } else {
    const tapped = event.type === "pointerup" && down.size === 1 && moved < 6;
    down.delete(event.pointerId);
    if (!tapped) return;
    const n = view.under(here.x, here.y, seen(), event.pointerType === "mouse" ? 12 : 24);
    if (n >= 0) handlers.open(keys[n]);
  }
}

const seen = () => placed.filter((n) => view.inside(n, view.side) && thumbnails.get(keys[n])?.state === "there");

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function key(event) {
  if (!view || event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = ARROWS[event.key];
  if (arrow) step(...arrow);
  else if (event.key === "+" || event.key === "=") zoomKeyed(1.6);
  else if (event.key === "-" || event.key === "−") zoomKeyed(1 / 1.6);
  else if (event.key === "0") home();
  else if (event.key === "Enter" && chosen >= 0) handlers.open(keys[chosen]);
  else return;
  event.preventDefault();
}

function zoomKeyed(factor) {
  const [x, y] = chosen >= 0 ? view.at(chosen) : [undefined, undefined];
  zoom(factor, x, y);
}

/** From photo to photo: among those that are shown as photos, or among all where there is none in that direction. */
function step(dx, dy) {
  const all = keys.map((_, n) => n);
  const next = chosen < 0 ? view.middle(placed) : view.towards(chosen, dx, dy, placed);
  const found = next >= 0 ? next : view.towards(chosen, dx, dy, all);
  if (found < 0) return;
  chosen = found;
  view.bring(chosen);
  redraw();
  tell(keys[chosen]);
}

const tell = settled(async (name) => {
  try {
    const about = await item(name);
    if (keys[chosen] === name) say([baseName(about.path), plain(inOrder(about.captions)[0]?.text ?? "")].filter(Boolean).join(", "));
  } catch {
    // the panel says what is wrong if it is opened
  }
}, 150);

function say(words) {
  $("map-said").textContent = words;
}

// -- the photo under the pointer ----------------------------------------------------------------------------------

function hover(n, at) {
  if (at && n >= 0) put(at);
  if (n === hovered) return;
  hovered = n;
  canvas.classList.toggle("over", n >= 0);
  $("map-card").hidden = true;
  if (n >= 0) preview(keys[n]);
  redraw();
}

function put({ x, y }) {
  const card = $("map-card");
  card.style.setProperty("--x", `${Math.round(x)}px`);
  card.style.setProperty("--y", `${Math.round(y)}px`);
  card.classList.toggle("left", x > view.width / 2);
  card.classList.toggle("above", y > view.height / 2);
}

const preview = settled(async (name) => {
  if (keys[hovered] !== name) return;
  try {
    const about = await item(name);
    if (keys[hovered] !== name) return;
    const [image, words] = $("map-card").children;
    image.onload = () => ($("map-card").hidden = keys[hovered] !== name);
    image.src = thumbnail(name, 512);
    words.textContent = plain(inOrder(about.captions)[0]?.text ?? "") || baseName(about.path);
  } catch {
    // gone meanwhile: nothing to show
  }
}, 60);
