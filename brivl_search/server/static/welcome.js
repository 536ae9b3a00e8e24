// The start page: how much there is, and some of it.

import { map } from "./api.js";
import { $ } from "./dom.js";
import * as grid from "./grid.js";
import { counted, t } from "./words.js";

const SAMPLE = 24; // photos

let sample = null; // keys, chosen once a visit

/** Shows it. `wanted()` says whether it still is, once the photos are known. */
export async function show(about, wanted) {
  $("welcome").hidden = false;
  if (!about) return;
  const kinds = about.texts.rows ? ["images", "texts"] : ["images"];
  $("collection").textContent = kinds.map((kind) => counted(kind, about[kind].rows)).join(" · ");
  try {
    sample ??= pickSome((await map()).keys);
  } catch {
    return; // the photos here are a welcome, nothing more
  }
  if (!wanted() || !sample.length) return;
  $("grid-title").textContent = t("some");
  $("grid-title").hidden = false;
  if (grid.shown()[0]?.key === sample[0]) return;
  grid.show(sample.map((key) => ({ key, image_key: key, path: "" })), "squares");
}

export function hide() {
  $("welcome").hidden = true;
  $("grid-title").hidden = true;
}

/** Some of the keys, others at each visit. */
function pickSome(keys) {
  const rest = [...keys];
  const some = [];
  while (some.length < SAMPLE && rest.length) some.push(...rest.splice(Math.floor(Math.random() * rest.length), 1));
  return some;
}
