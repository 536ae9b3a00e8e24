// The panel of one item: the whole picture, what is known of it, and where to go from there.

import { Trouble, image, item, thumbnail } from "./api.js";
import { $, baseName, el, plain } from "./dom.js";
import { match } from "./grid.js";
import { bytes, date, inOrder, t, tongue } from "./words.js";

let handlers = {};
let shown = null; // { key, hit, imageKey, path: absolute, once it is known }
let request = null;

/** Handlers: close(), step(±1) → whether there is one more there, has(±1), like(key), describe(key), add(key, ±1), trouble(error). */
export function start(given) {
  handlers = given;
  const panel = $("detail");
  panel.addEventListener("cancel", (event) => {
    event.preventDefault(); // the address closes it, so that Back and Esc agree
    handlers.close();
  });
  panel.addEventListener("click", (event) => {
    if (event.target === panel) handlers.close();
  });
  panel.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      handlers.step(by);
    }
  });
  $("close").addEventListener("click", () => handlers.close());
  $("previous").addEventListener("click", () => handlers.step(-1));
  $("next").addEventListener("click", () => handlers.step(1));
  $("copy").addEventListener("click", copyPath);
  $("plus-this").addEventListener("click", () => handlers.add(shown.imageKey, 1));
  $("minus-this").addEventListener("click", () => handlers.add(shown.imageKey, -1));
  for (const [id, act] of [["like", "like"], ["describe", "describe"]]) {
    $(id).addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      handlers[act](shown.imageKey);
    });
  }
  const whole = $("detail-image");
  whole.addEventListener("load", () => $("detail").classList.add("there"));
  whole.addEventListener("error", () => {
    const smaller = thumbnail(shown.imageKey, 1024); // a kind of file that browsers cannot show
    if (!whole.src.endsWith(smaller)) whole.src = smaller;
    else missing(true);
  });
}

export const isOpen = () => $("detail").open;
export const key = () => shown?.key ?? "";

/** Opens the panel, or changes what it shows; `hit` is what the list knows of it already. */
export async function open(key, hit = null) {
  request?.abort();
  request = new AbortController();
  shown = { key, hit, imageKey: hit?.image_key ?? (key.startsWith("i") ? key : null), path: "" };
  fill(hit ?? { key, path: "" }, null);
  if (!isOpen()) {
    $("detail").showModal();
    $("close").focus();
  }
  try {
    const about = await item(key, request.signal);
    if (shown.key !== key) return;
    shown.imageKey = about.image_key;
    shown.path = about.absolute_path;
    fill({ ...hit, ...about }, about);
  } catch (error) {
    if (error.name !== "AbortError" && shown?.key === key) handlers.trouble(error instanceof Trouble ? error : new Trouble("page", { message: String(error) }));
  }
}

export function close() {
  request?.abort();
  shown = null;
  if (isOpen()) $("detail").close();
  $("detail-image").removeAttribute("src");
}

/** Says it again in the language of the page. */
export function again() {
  if (shown) open(shown.key, shown.hit);
}

function missing(gone) {
  $("detail-missing").hidden = !gone;
  $("detail-image").hidden = gone;
}

function fill(known, about) {
  const key = shown.imageKey;
  const name = known.kind === "text" ? plain(known.text) : baseName(known.path);
  $("detail-name").textContent = name;
  const whole = $("detail-image");
  if (key && !whole.src.endsWith(image(key))) {
    missing(false);
    $("detail").classList.remove("there");
    whole.style.setProperty("--preview", `url("${thumbnail(key, 512)}")`);
    for (const [name, length] of [["--wide", known.width], ["--high", known.height]]) {
      if (length) whole.style.setProperty(name, length); // small photos are shown at twice their size at most
      else whole.style.removeProperty(name);
    }
    whole.src = image(key);
  } else if (!key && about) missing(true);
  const [first] = inOrder(about?.captions ?? []);
  whole.alt = first ? plain(first.text) : baseName(known.path);
  $("detail-figures").replaceChildren(...figures(shown.hit ?? {}));
  $("previous").hidden = !handlers.has(-1);
  $("next").hidden = !handlers.has(1);
  $("like").href = key ? handlers.likeAddress(key) : "";
  $("describe").href = key ? handlers.describeAddress(key) : "";
  $("describe").hidden = !handlers.hasTexts();
  $("minus-this").hidden = !handlers.canSubtract();
  $("detail").querySelector(".actions").hidden = $("original").hidden = !key;
  $("original").href = key ? image(key) : "";
  $("detail-path").textContent = plain(known.absolute_path ?? known.path);
  $("copy").disabled = !known.absolute_path;
  captions(inOrder(about?.captions ?? []), known);
  facts(known, about);
  alike(shown.hit?.duplicate_keys ?? []);
}

/** How well it fits the search that found it. */
function figures(hit) {
  if (hit.score === undefined) return [];
  return [...match(hit), el("span", { class: "score", title: t("score_title") }, `${t("score")} ${hit.score.toFixed(3)}`)];
}

function captions(all, known) {
  $("detail-captions").hidden = !all.length;
  $("detail-captions").replaceChildren(
    ...all.map((one) =>
      el("li", { class: one.key === known.key ? "this" : null }, el("span", { dir: "auto", lang: tongue(one.text) }, plain(one.text)), el("small", {}, [plain(one.field), one.generated ? t("generated") : ""].filter(Boolean).join(" · "))),
    ),
  );
}

function facts(known, about) {
  const rows = [];
  if (known.taken) rows.push([t("taken"), date(known.taken)]);
  if (about?.modified) rows.push([t("modified"), date(about.modified)]);
  const size = [];
  if (known.width && known.height) size.push(t("pixels", { width: known.width, height: known.height }));
  if (about?.size) size.push(bytes(about.size));
  if (size.length) rows.push([t("size"), size.join(" · ")]);
  for (const [name, value] of Object.entries(about?.fields ?? {})) {
    rows.push([plain(name), plain(Array.isArray(value) ? value.join(", ") : String(value))]);
  }
  $("detail-facts").replaceChildren(...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { dir: "auto" }, value)]));
}

function alike(keys) {
  $("detail-alike").hidden = !keys.length;
  $("detail-alike")
    .querySelector("ul")
    .replaceChildren(
      ...keys.slice(0, 24).map((key, n) => el("li", {}, el("a", { href: image(key), target: "_blank", rel: "noopener", "aria-label": `${t("alike")} ${n + 1}` }, el("img", { alt: "", loading: "lazy", src: thumbnail(key, 128) })))),
    );
}

async function copyPath() {
  const path = $("detail-path");
  let done = false;
  try {
    // What turns the reading order belongs to the name; a line break could be a command in a terminal.
    await navigator.clipboard.writeText(shown.path.replace(/\p{Cc}/gu, "\ufffd"));
    done = true;
  } catch {
    // no clipboard outside https and localhost: the old way, with what is selected
    getSelection().selectAllChildren(path);
    done = document.execCommand("copy");
  }
  const said = t(done ? "copied" : "not_copied");
  $("detail-said").textContent = said;
  $("copy").textContent = done ? said : t("copy");
  if (!done) getSelection().selectAllChildren(path);
  setTimeout(() => {
    $("copy").textContent = t("copy");
    $("detail-said").textContent = "";
  }, 2500);
}
