// The line that says how many hits are shown, and of how many.

import { $ } from "./dom.js";
import { hasFilters } from "./query.js";
import { counted, number, t } from "./words.js";

export function say(words) {
  $("status").textContent = words;
}

/**
 * Says what was found.
 *
 * @param query that was asked.
 * @param hits that are shown.
 * @param more whether there are others.
 * @param took milliseconds.
 * @param about the server's index; null if not known yet.
 * @param unknown words of the query that the encoder does not know.
 * @param fits whether one of the hits does; null if that is not known.
 */
export function found(query, hits, more, took, about, unknown = [], fits = null) {
  if (!hits.length) return say("");
  const some = query.view === "map" ? ringed(hits) : listed(query, hits.length, more, about);
  const what = fits === false ? t(`no_fit_${query.target}`, { said: some }) : some;
  const said = t("took", { said: what, ms: number(Math.round(took)) });
  say(unknown.length ? t("unknown", { said, words: unknown.slice(0, 8).join(", ") }) : said);
}

function ringed(hits) {
  const photos = new Set(hits.map((hit) => hit.image_key).filter(Boolean));
  return t("ringed", { photos: counted("images", photos.size) });
}

function listed(query, n, more, about) {
  const all = about?.[query.target].rows;
  if (all > n && !hasFilters(query)) return t(`best_${query.target}`, { n: number(n), all: counted(query.target, all) });
  return more ? t(`more_${query.target}`, { n: number(n) }) : counted(query.target, n);
}
