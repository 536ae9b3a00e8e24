// What is searched for: as the page holds it, as its address says it, and as the server takes it.

import { keptAs } from "./pictures.js";

export const PAGE = 40; // hits a request

export const emptyFilters = () => ({ under: "", glob: "", from: "", to: "", size: "", where: "", match: 0, dedupe: false, rerank: false });

export const emptyQuery = () => ({
  text: "",
  terms: [], // { kind: "text" | "key" | "picture", value, weight }, weight below zero: to stay away from it
  target: "images",
  filters: emptyFilters(),
  view: "list", // or "map"
  item: "", // key of the item whose details are open
});

export const asks = (query) => query.text !== "" || query.terms.some((term) => term.weight > 0);

/** A text alone on photos, or a picture alone on captions: only then the server knows a match. */
export function knowsMatch(query) {
  const others = query.terms.length;
  if (query.text) return others === 0 && query.target === "images";
  return others === 1 && query.terms[0].weight > 0 && (query.terms[0].kind === "text") === (query.target === "images");
}

/** A text alone on photos, or a picture alone on captions: only then the server's matcher can read them together. */
export const canRerank = (query) => knowsMatch(query) && !(query.terms[0]?.kind === "key" && /^t/iu.test(query.terms[0].value));

/** Whether something may be left out; another order leaves nothing out. */
export const hasFilters = ({ filters }) => countFilters({ ...filters, rerank: false }) > 0;

export function countFilters(filters) {
  const { from, to, ...others } = filters;
  return Object.values(others).filter(Boolean).length + (from || to ? 1 : 0);
}

const SHORT = { text: "t", key: "k", picture: "p" };
const LONG = { t: "text", k: "key", p: "picture" };

/** "?q=狗&term=-0.5:t:人" */
export function toAddress(query) {
  const at = new URLSearchParams();
  if (query.text) at.set("q", query.text);
  for (const { kind, value, weight } of query.terms) at.append("term", `${weight}:${SHORT[kind]}:${value}`);
  if (query.target !== "images") at.set("find", query.target);
  for (const [name, value] of Object.entries(query.filters)) if (value) at.set(name, value === true ? "1" : String(value));
  if (query.view !== "list") at.set("view", query.view);
  if (query.item) at.set("item", query.item);
  const text = at.toString();
  return text ? `?${text}` : "./";
}

export function fromAddress(search) {
  const at = new URLSearchParams(search);
  const query = emptyQuery();
  query.text = (at.get("q") ?? "").trim();
  for (const one of at.getAll("term")) {
    const found = /^(-?\d+(?:\.\d+)?):([tkp]):(.+)$/su.exec(one);
    if (found && Number(found[1])) query.terms.push({ kind: LONG[found[2]], value: found[3], weight: Number(found[1]) });
  }
  if (at.get("find") === "texts") query.target = "texts";
  for (const name of ["under", "glob", "from", "to", "size", "where"]) query.filters[name] = (at.get(name) ?? "").trim();
  query.filters.match = Math.min(Math.max(Number(at.get("match")) || 0, 0), 95);
  query.filters.dedupe = at.get("dedupe") === "1";
  query.filters.rerank = at.get("rerank") === "1";
  if (at.get("view") === "map") query.view = "map";
  query.item = at.get("item") ?? "";
  return query;
}

/** Everything that changes which hits come, as one string. */
export const fingerprint = (query) => toAddress({ ...query, item: "", view: "list" });

const isDay = (text) => /^\d{4}-\d\d-\d\d$/u.test(text) && new Date(`${text}T00:00:00Z`).toJSON()?.startsWith(text);
const fieldsOf = (where) => where.split(/[,，;；]/u).map((one) => one.trim()).filter(Boolean);

/** A filter that cannot be meant, as [name of the field, key of the words that say so, values for them]; null if all can. */
export function mistake({ from, to, size, where }) {
  for (const [name, day] of [["from", from], ["to", to]]) if (day && !isDay(day)) return [name, "e_day", { day }];
  if (from && to && from > to) return ["to", "e_date", { from, to }];
  if (size && !/^\d{1,6}(\s*[x×X]\s*\d{1,6})?$/u.test(size)) return ["size", "e_size", {}];
  if (fieldsOf(where).some((one) => !/^[^=]*[^=\s][^=]*=/u.test(one))) return ["where", "e_where", {}];
  return null;
}

const nextDay = (day) => {
  const when = new Date(`${day}T00:00:00Z`);
  when.setUTCDate(when.getUTCDate() + 1);
  return when.toISOString().slice(0, 10);
};

function serverFilters(filters) {
  const asked = {};
  if (filters.under) asked.under = [filters.under];
  if (filters.glob) asked.glob = [filters.glob];
  if (filters.from) asked.after = filters.from;
  if (filters.to) asked.before = nextDay(filters.to); // the server's `before` leaves out the day itself
  if (filters.size) asked.min_size = filters.size;
  for (const one of fieldsOf(filters.where)) {
    const [name, ...value] = one.split("=");
    ((asked.where ??= {})[name.trim()] ??= []).push(value.join("=").trim());
  }
  return asked;
}

/** The request for hits from `offset` on: [JSON body, files of its pictures]. */
export function toRequest(query, offset, k) {
  const files = [];
  const terms = query.text ? [{ text: query.text }] : [];
  for (const { kind, value, weight } of query.terms) {
    if (kind === "picture") {
      const picture = keptAs(value);
      if (!picture) throw new LostPicture(value);
      terms.push({ image: files.length, weight });
      files.push(picture.content);
    } else terms.push({ [kind]: value, weight });
  }
  const body = { terms, target: query.target, k, offset, filters: serverFilters(query.filters) };
  if (query.filters.dedupe) body.dedupe = true;
  if (query.filters.rerank && canRerank(query) && query.view === "list") body.rerank = true;
  if (query.filters.match && knowsMatch(query)) body.min_match = query.filters.match / 100;
  return [body, files];
}

export class LostPicture extends Error {}
