// The words of the page in its language, and numbers, dates and sizes as that language writes them.

import { en } from "./words_en.js";
import { zh } from "./words_zh.js";

export const LANGUAGES = { en, zh };

let language = "en";

export const current = () => language;

/** The words for `key` in the language of the page, with {places} filled in; a list is written as one. */
export function t(key, values = {}) {
  const words = LANGUAGES[language][key];
  if (words === undefined) throw new Error(`no words for ${key}`);
  return words.replace(/\{(\w+)\}/g, (_, name) => listed(values[name]));
}

const listed = (value) => (Array.isArray(value) ? value.join(language === "zh" ? "、" : ", ") : String(value));

// So that a screen reader takes the right voice; all that is asked of it is Chinese or English.
export const tongue = (text) => (/\p{Script=Han}/u.test(text) ? "zh" : "en");

/** Captions with those in the language of the page first. */
export const inOrder = (captions) => [...captions].sort((a, b) => (tongue(b.text) === language) - (tongue(a.text) === language));

/** Whether there are words for `key`. */
export const hasWords = (key) => key in LANGUAGES[language];

/** A probability in whole per cent, "<1%" to "99%": never 0 or 100, which would say certain. */
export const percent = (part) => (part < 0.005 ? "<1%" : `${Math.min(Math.round(100 * part), 99)}%`);

/** "1 photo", "6,000 captions"; `kind` is "images" or "texts". */
export const counted = (kind, n) => t(`${n === 1 ? "one" : "some"}_${kind}`, { n: number(n) });

export const number = (value) => new Intl.NumberFormat(language).format(value);

export function date(text) {
  const when = new Date(text);
  if (Number.isNaN(when.getTime())) return text;
  return new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium", timeStyle: "short" }).format(when);
}

export function bytes(value) {
  const [amount, unit] = value < 1e6 ? [value / 1e3, "kilobyte"] : [value / 1e6, "megabyte"];
  return new Intl.NumberFormat(language, { style: "unit", unit, maximumFractionDigits: amount < 10 ? 1 : 0 }).format(amount);
}

/** What the browser asks for first, unless this page was told otherwise before. */
export function preferred(remembered, wanted) {
  if (remembered in LANGUAGES) return remembered;
  for (const one of wanted) {
    const short = one.toLowerCase().split("-")[0];
    if (short in LANGUAGES) return short;
  }
  return "en";
}

/** Speak `name` from now on: fills in all of the page that does not change. */
export function speak(name, root = document) {
  language = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of root.querySelectorAll("[data-t-title]")) node.title = t(node.dataset.tTitle);
  for (const node of root.querySelectorAll("[data-t-placeholder]")) node.placeholder = t(node.dataset.tPlaceholder);
}
