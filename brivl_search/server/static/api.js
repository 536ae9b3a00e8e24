// The server's answers, and its troubles as one kind of error.

import { LostPicture, toRequest } from "./query.js";

/** What went wrong. `kind` names the words for it in words.js; `message` is the server's own line, if it gave one. */
export class Trouble extends Error {
  constructor(kind, message = "", retry = 0) {
    super(message);
    this.kind = kind;
    this.retry = retry; // seconds after which it is worth another try, 0: not by itself
  }
}

const KINDS = {
  too_large: "large",
  rate_limited: "busy",
  index: "index",
  not_found: "item",
  conflict: "item",
  internal: "internal",
};

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
      throw new Trouble("gone", "", 3);
    }
    if (answer.status === 401) {
      await signIn();
      continue;
    }
    if (answer.ok) return answer.status === 204 ? null : await answer.json();
    throw await trouble(answer);
  }
}

async function trouble(answer) {
  let said = {};
  try {
    said = (await answer.json()).error ?? {};
  } catch {
    // a proxy's page, say
  }
  if (answer.status === 413) return new Trouble("large", said.message);
  if (answer.status === 502 || answer.status === 504) return new Trouble("gone", said.message, 3);
  if (answer.status === 429) return new Trouble("busy", said.message, Number(answer.headers.get("Retry-After")) || 2);
  if (answer.status === 503) return new Trouble("index", said.message, 3);
  return new Trouble(KINDS[said.type] ?? (answer.status >= 500 ? "internal" : "usage"), said.message ?? "");
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
  try {
    return await call("v1/search", { method: "POST", body: form, signal });
  } catch (error) {
    if (error instanceof Trouble && error.kind === "usage") throw new Trouble("picture", error.message);
    throw error;
  }
}
