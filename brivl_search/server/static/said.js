// What the server's error codes mean on this page, so that it can say them in words and language of its own.
// The codes are those of server/protocol/codes.py.

import { number } from "./words.js";

// code → details → [kind of trouble, values for its words, [key, values] of words that explain it]; null: as its kind has
const ERRORS = {
  unknown_field: ({ field, fields }) => ["field", { name: field, there: fields }],
  no_such_folder: ({ folder, folders }) => ["folder", { name: folder, there: folders }],
  bad_date: ({ value }) => ["filter", {}, ["e_day", { day: value }]],
  bad_size: () => ["filter", {}, ["e_size", {}]],
  bad_where: () => ["filter", {}, ["e_where", {}]],
  no_match: () => ["no_match", {}],
  nothing_of_target: ({ target }) => [target === "texts" ? "no_texts" : "no_photos", {}],
  terms_cancel: () => ["cancel", {}],
  text_too_long: ({ limit }) => ["long", { n: number(limit) }],
  too_many_terms: ({ limit }) => ["terms", { n: number(limit) }],
  too_many_pictures: ({ limit }) => ["pictures", { n: number(limit) }],
  upload_too_large: () => ["large", {}],
  request_too_large: () => ["large", {}],
  picture: ({ reason }) => ["picture", {}, [`r_${String(reason).replaceAll(" ", "_")}`, {}]],
  index_missing: () => ["index", {}],
  busy: () => ["busy", {}],
  no_such_item: () => ["item", {}],
  foreign_host: () => ["forbidden", {}, ["e_foreign_host", {}]],
  foreign_page: () => ["forbidden", {}, ["e_foreign_page", {}]],
  starting: () => ["starting", {}],
  overloaded: () => ["busy", {}],
};

// Codes that have a sentence of their own, c_CODE, under the heading of a kind of trouble.
const SENTENCES = {
  usage: [
    "nothing_asked",
    "empty_text",
    "not_utf8",
    "bad_encoding",
    "no_picture",
    "no_such_upload",
    "not_base64",
    "no_such_file",
    "bad_vector",
    "bad_k",
    "no_rerank",
    "no_matcher",
    "no_regions",
    "no_captioner",
    "no_language",
    "kept",
    "bad_labels",
    "no_such_captions",
    "nothing_to_add",
    "paths_or_uploads",
    "content_type",
    "unknown_part",
    "bad_length",
    "request_too_slow",
    "no_such_index",
    "nothing_is_fetched",
  ],
  limit: [
    "too_many_hits",
    "too_many_texts",
    "too_many_sentences",
  ],
  item: [
    "no_picture_of_caption",
    "file_gone",
    "file_changed",
    "file_unreadable",
  ],
  forbidden: [
    "outside",
    "no_uploads",
    "read_only",
    "wrong_token",
    "token_wanted",
    "bad_host",
  ],
  internal: [
    "disk_full",
  ],
  unready: [
    "index_damaged",
  ],
};
const KIND_OF = Object.fromEntries(Object.entries(SENTENCES).flatMap(([kind, codes]) => codes.map((code) => [code, kind])));

/** { kind, values, words } of an error of the server; null if the page has no words for it. */
export function understood({ code, details }) {
  const own = code in KIND_OF ? [KIND_OF[code], {}, [`c_${code}`, details ?? {}]] : [];
  const [kind, values, words = null] = ERRORS[code]?.(details ?? {}) ?? own;
  return kind ? { kind, values, words } : null;
}

// Of an answer without hits: why the filters let nothing through.
const NOTES = {
  filter_glob: ({ glob, names }) => [names.length ? "n_glob" : null, { glob, names }],
  filter_after: ({ newest }) => [newest ? "n_newest" : "n_no_date", { day: newest }],
  filter_before: ({ oldest }) => [oldest ? "n_oldest" : "n_no_date", { day: oldest }],
  filter_min_size: ({ largest }) => ["n_largest", { largest }],
  filter_where: ({ field, asked, values }) => [values.length ? "n_where" : null, { field, asked, values }],
  filter_together: () => ["n_together", {}],
};

/** [key, values] of the words for the note of an answer; null if there are none. */
export function noted(note) {
  const [key, values] = (note && NOTES[note.code]?.(note.details)) ?? [];
  return key ? [key, values] : null;
}
