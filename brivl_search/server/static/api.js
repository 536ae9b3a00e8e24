// The server's answers, and its troubles as one kind of error.

import { LostPicture, toRequest } from "./query.js";
import { understood } from "./said.js";
import { hasWords } from "./words.js";

/** What went wrong. */
export class Trouble extends Error {
  /**
   * @param kind names its words: `e_KIND` is the heading, `e_KIND_do` what it means.
   * @param more.message the server's own line, where the words do not say all of it.
   * @param more.retry seconds after which it is worth another try, 0: not by itself.
   * @param more.values for the words.
   * @param more.words [key, values] of words that explain it better than those of its kind.
   */
  constructor(kind, { message = "", retry = 0, values = {}, words = null } = {}) {
    super(message);
    Object.assign(this, { kind, retry, values, words });
  }
}

// By the server's type of error, for codes that the page does not know.
const KINDS = {
  too_large: "limit",
  rate_limited: "busy",
  overloaded: "busy",
  starting: "starting",
  index: "unready",
  forbidden: "forbidden",
  not_found: "item",
  conflict: "item",
  internal: "internal",
};
const RETRIES = { busy: 2, starting: 1, unready: 3, index: 3, gone: 3 };

let signIn = async () => {
  throw new Trouble("usage", { message: "unauthorized" });
};

/** `ask(again)` shows the form for the token and resolves once one was accepted. */
export function onUnauthorized(ask) {
  signIn = ask;
}

async function call(path, options = {}) {
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, { credentials: "same-origin", ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Trouble("gone", { retry: RETRIES.gone });
    }
    if (answer.status === 401) {
      await signIn();
      continue;
    }
    if (!answer.ok) throw await trouble(answer);
    try {
      return await answer.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Trouble("gone", { retry: RETRIES.gone }); // cut off, or another's page
    }
  }
}

async function trouble(answer) {
  let said = {};
  try {
    said = (await answer.json()).error ?? {};
  } catch {
    // a proxy's page, say
  }
  const { status } = answer;
  const known = understood(said);
  let kind = known?.kind ?? KINDS[said.type] ?? (status >= 500 ? "internal" : "usage");
  if (!said.type) kind = { 413: "large", 429: "busy", 502: "gone", 503: "gone", 504: "gone" }[status] ?? kind; // not ours
  const whole = known && (!known.words || hasWords(known.words[0]));
  return new Trouble(kind, {
    message: whole ? "" : said.message,
    retry: Number(answer.headers.get("Retry-After")) || (RETRIES[kind] ?? 0),
    values: known?.values,
    words: whole ? known.words : null,
  });
}

/** Gives the token to the server, which answers with a cookie; false if it is not the right one. */
export async function session(token) {
  const answer = await fetch("v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (answer.ok) return true;
  if (answer.status === 401) return false;
  throw await trouble(answer);
}

export const about = (signal) => call("v1/index", { signal });
export const item = (key, signal) => call(`v1/items/${encodeURIComponent(key)}`, { signal });
export const map = (signal) => call("v1/map", { signal });
export const thumbnail = (key, size) => `v1/items/${encodeURIComponent(key)}/thumbnail?size=${size}`;
export const image = (key) => `v1/items/${encodeURIComponent(key)}/image`;

export async function search(query, offset, k, signal) {
  let body, files;
  try {
    [body, files] = toRequest(query, offset, k);
  } catch (error) {
    throw error instanceof LostPicture ? new Trouble("lost") : error;
  }
  if (!files.length) {
    return call("v1/search", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
  }
  const form = new FormData();
  form.set("request", JSON.stringify(body));
  for (const file of files) form.append("image", file, "image"); // its name is nobody's business
  return call("v1/search", { method: "POST", body: form, signal });
}
