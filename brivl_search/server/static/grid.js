// The hits as rows of photos in their own proportions, or captions beside their photo; arrow keys go about in them.

import { thumbnail } from "./api.js";
import { $, baseName, el, plain } from "./dom.js";
import { number, percent, t } from "./words.js";

const EAGER = 12; // thumbnails that are fetched at once; the others as they come near
const PATIENCE = 1500; // milliseconds before a thumbnail that failed is asked for once more

let hits = [];
let shownAs = "images";
let tall = 200; // pixels of a row
let handlers = { open: () => {}, address: () => "" };

export const shown = () => hits;

/** `open(hit)` is called for a click or Enter; `address(hit)` is what the tile links to. */
export function start(given) {
  handlers = given;
  $("grid").addEventListener("keydown", move);
  $("grid").addEventListener("click", (event) => {
    const link = event.target.closest("a.tile");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    handlers.open(hits[Number(link.dataset.at)]);
  });
}

/** Shows hits, after those that are there with `append`. `kind`: "images", "texts", or "squares" for a mosaic. */
export function show(fresh, kind, append = false) {
  const grid = $("grid");
  shownAs = kind;
  const known = new Set(append ? hits.map((hit) => hit.key) : []);
  fresh = fresh.filter((hit) => !known.has(hit.key)); // a new generation may have moved hits across the pages
  const first = append ? hits.length : 0;
  const row = parseFloat(getComputedStyle(grid).getPropertyValue("--row")) * 16;
  tall = { texts: 60, squares: 140 }[kind] ?? row;
  const tiles = fresh.map((hit, n) => (kind === "texts" ? caption(hit, first + n) : photo(hit, first + n)));
  grid.className = `grid ${kind}`;
  if (append) grid.append(...tiles);
  else grid.replaceChildren(...tiles);
  hits = append ? [...hits, ...fresh] : fresh;
  if (!append && tiles.length) tiles[0].querySelector("a").tabIndex = 0;
}

/** Says it again in the language of the page. */
export function again() {
  if (hits.length) show(hits, shownAs);
}

/** Gives the focus to the tile of `key`; says whether there is one. */
export function focus(key) {
  const at = hits.findIndex((hit) => hit.key === key);
  if (at < 0) return false;
  enter($("grid").querySelectorAll("a.tile")[at]);
  return true;
}

const ratio = ({ width, height }) => (width && height ? Math.min(Math.max(width / height, 0.56), 2.4) : 4 / 3);

function photo(hit, at) {
  const box = ratio(hit);
  return el("li", { "--ratio": box }, link(hit, at, baseName(hit.path), picture(hit, at)), figures(hit));
}

function caption(hit, at) {
  const words = el("span", { class: "words", dir: "auto" }, plain(hit.text));
  const by = hit.generated ? [el("small", { class: "generated" }, t("generated"))] : [];
  return el("li", {}, link(hit, at, plain(hit.text), picture(hit, at), words, ...by), figures(hit));
}

function link(hit, at, name, ...inside) {
  name ||= t("photo", { n: at + 1 });
  const known = hasMatch(hit);
  const said = hit.rank ? t(known ? "tile_match" : "tile", { rank: hit.rank, name, match: known ? percent(hit.match) : "" }) : name;
  return el(
    "a",
    { class: "tile", href: handlers.address(hit), tabindex: "-1", "data-at": at, "data-key": hit.key, "aria-label": said, title: plain(hit.path) || null },
    ...inside,
  );
}

function picture(hit, at) {
  const key = hit.image_key;
  if (!key) return el("span", { class: "frame missing" }, t("image_gone"));
  const frame = el("span", { class: "frame" });
  let tried = false;
  const side = tall * Math.max(ratio(hit), 1) * 1.2 * devicePixelRatio; // rows are stretched a little to fill the width
  const source = thumbnail(key, [128, 256, 512].find((one) => one >= side) ?? 1024);
  const image = el("img", {
    alt: "",
    src: source,
    loading: at < EAGER ? "eager" : "lazy",
    decoding: "async",
    fetchpriority: at < EAGER ? "high" : "auto",
    on: {
      load: () => frame.classList.add("there"),
      error: () => {
        if (!tried) {
          tried = true; // the server may have been busy
          setTimeout(() => (image.src = source), PATIENCE);
          return;
        }
        frame.classList.add("missing");
        frame.replaceChildren(el("b", {}, baseName(hit.path)), t("image_gone"));
      },
    },
  });
  frame.append(image);
  return frame;
}

export const hasMatch = (hit) => hit.match !== null && hit.match !== undefined;

/** Match with its bar, number of near-identical ones; null where there is neither. */
function figures(hit) {
  const parts = [...match(hit)];
  if (hit.duplicates) parts.push(el("span", { class: "alike-count", title: t("alike_more", { n: number(hit.duplicates) }) }, `+${number(hit.duplicates)}`));
  return parts.length ? el("p", { class: "figures" }, parts) : null;
}

/** The probability of a hit, as a bar and in per cent; nothing where it is not known. */
export function match(hit) {
  if (!hasMatch(hit)) return [];
  return [el("span", { class: "meter", "aria-hidden": "true", "--part": hit.match }), el("span", { class: "match", title: t("match_title") }, percent(hit.match))];
}

/** A row of the same height that shows that something comes. */
export function waiting() {
  $("grid").className = "grid images waiting";
  const shapes = [1.5, 0.75, 1.33, 1.5, 1.5, 0.67, 1.4, 1.33, 1.5, 0.8, 1.5, 1.33];
  $("grid").replaceChildren(...shapes.map((one) => el("li", { "--ratio": one, "aria-hidden": "true" }, el("span", { class: "frame" }))));
  hits = [];
}

function enter(tile) {
  for (const other of $("grid").querySelectorAll('a.tile[tabindex="0"]')) other.tabIndex = -1;
  tile.tabIndex = 0;
  tile.focus();
  tile.scrollIntoView({ block: "nearest" });
}

function move(event) {
  const tile = event.target.closest("a.tile");
  if (!tile || event.altKey || event.ctrlKey || event.metaKey) return;
  const tiles = [...$("grid").querySelectorAll("a.tile")];
  const at = tiles.indexOf(tile);
  const next = {
    ArrowRight: () => tiles[at + 1],
    ArrowLeft: () => tiles[at - 1],
    ArrowDown: () => beside(tiles, tile, 1),
    ArrowUp: () => beside(tiles, tile, -1),
    Home: () => tiles[0],
    End: () => tiles.at(-1),
  }[event.key];
  if (!next) return;
  event.preventDefault();
  const found = next();
  if (found) enter(found);
}

/** The tile of the next row, or the one before, that is nearest to straight below or above. */
function beside(tiles, tile, direction) {
  const here = tile.getBoundingClientRect();
  const middle = here.left + here.width / 2;
  let best = null;
  let row = null;
  const from = tiles.indexOf(tile);
  for (let at = from + direction; at >= 0 && at < tiles.length; at += direction) {
    const there = tiles[at].getBoundingClientRect();
    if (Math.abs(there.top - here.top) < 4) continue;
    row ??= there.top;
    if (Math.abs(there.top - row) > 4) break;
    const away = Math.abs(there.left + there.width / 2 - middle);
    if (!best || away < best.away) best = { away, tile: tiles[at] };
  }
  return best?.tile;
}
