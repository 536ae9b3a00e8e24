// The server's answers, and its troubles as one kind of error.

import { LostPicture, toRequest } from "./query.js";
import { understood } from "./said.js";
import { hasWords } from "./words.js";

/** What went wrong. `kind` names the words for it (`e_KIND`), `values` fill their places. */
export class Trouble extends Error {
  /**
   * @param kind of trouble.
   * @param message the server's own line, where it gave one.
   * @param retry seconds after which it is worth another try, 0: not by itself.
   */
  constructor(kind, message = "", retry = 0) {
    super(message);
    this.kind = kind;
    this.retry = retry;
    this.values = {};
    this.known = false; // whether the words say all that the message does
  }
}

// By the server's type of error, for lines that the page does not know.
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
  throw new Trouble("usage", "unauthorized");
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
      throw new Trouble("gone", "", RETRIES.gone);
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
      throw new Trouble("gone", "", RETRIES.gone); // cut off, or another's page
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
  const message = said.message ?? "";
  const found = understood(message);
  let kind = found?.kind ?? KINDS[said.type] ?? (status >= 500 ? "internal" : "usage");
  if (!said.type) kind = { 413: "large", 429: "busy", 502: "gone", 503: "gone", 504: "gone" }[status] ?? kind; // not ours
  const told = new Trouble(kind, message, Number(answer.headers.get("Retry-After")) || (RETRIES[kind] ?? 0));
  if (found) {
    told.values = found.values;
    told.known = !found.values.reason || hasWords(found.values.reason);
  }
  return told;
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
