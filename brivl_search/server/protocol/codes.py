"""What is wrong, in names that programs can tell apart: the `code` of an error answer, and what its `details` hold.

An error answer is {"error": {"type", "message", "code", "details"}}. The type is the kind of trouble, one for each
status or so; the code says which trouble it is; the message says it to people in English. A page that speaks another
language makes its own sentence of code and details. Codes keep their names; new ones may come.
"""

from __future__ import annotations

TYPES = {
    400: "usage",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "not_found",
    408: "usage",
    409: "conflict",
    413: "too_large",
    415: "usage",
    422: "invalid",
    429: "rate_limited",
    503: "index",
}

CODES = {
    # what was asked for
    "nothing_asked": "no text, picture or term with a weight above 0",
    "empty_text": "a text without words; where",
    "not_utf8": 'text that is not UTF-8; encoding: how Python calls what it seems to be, "" if nobody knows',
    "bad_encoding": "encoding: no text encoding has this name",
    "text_too_long": "where, limit: characters",
    "no_picture": "pictures are wanted and none was given",
    "no_such_upload": "the request has no `image` part of this number; image, uploads",
    "not_base64": "base64 that is none",
    "picture": "a picture cannot be read; reason: short and countable, detail",
    "no_such_file": "a picture's path leads nowhere; path",
    "bad_vector": "a vector of another length, or without a direction; dim",
    "terms_cancel": "the terms of a query cancel each other out",
    "bad_k": "k",
    "no_match": "no match is known, and a least one or a count is wanted; calibrated: whether any is, unknown_words",
    "no_rerank": "hits are to be re-ordered, and the query is neither one text on images nor one picture on captions",
    "no_matcher": "hits are to be re-ordered, and this server has no matcher",
    "no_regions": "an index is to keep regions for a matcher that reads none",
    "no_captioner": "captions are to be written, and there is no such captioner",
    "no_language": "captions are wanted in a language that the captioner does not write",
    "kept": "a file that is there already, and stays",
    "nothing_of_target": "the index holds none of these; target: images or texts",
    "bad_labels": "labels of a classification that are empty or given twice; label",
    "no_such_captions": "no caption line has these fields; fields, known: those there are",
    # filters
    "unknown_field": "no record has this field; field, fields: those there are",
    "no_such_folder": "the index holds nothing in this folder; folder, folders: some that it holds",
    "bad_where": "where",
    "bad_date": "argument: after or before, value",
    "bad_size": "value",
    "filter_glob": "no name fits; glob, names: some that there are",
    "filter_after": "nothing is so new; after, newest",
    "filter_before": "nothing is so old; before, oldest",
    "filter_min_size": "nothing is so large; min_size, largest",
    "filter_where": "no item has such values; where",
    "filter_together": "each filter lets something through, and no item passes all of them",
    # limits of this server
    "request_too_large": "limit: bytes",
    "upload_too_large": "limit: bytes",
    "too_many_hits": "asked, limit",
    "too_many_terms": "asked, limit",
    "too_many_texts": "asked, limit",
    "too_many_pictures": "asked, limit",
    "too_many_sentences": "labels and templates make too many sentences; asked, limit",
    # items, files, changes
    "no_such_item": "no item of the index has this key",
    "no_picture_of_caption": "the caption has no picture in the index",
    "file_gone": "an indexed file cannot be read any more; reason, detail",
    "file_changed": "an indexed file is not what was indexed; reason, detail",
    "file_unreadable": "an indexed file cannot be shown; reason, detail",
    "nothing_to_add": "neither paths nor uploads",
    "paths_or_uploads": "both paths and uploads",
    "outside": "a path that does not lie under the index's folders; path",
    "no_uploads": "this server keeps no uploads",
    "read_only": "this server changes nothing",
    "busy": "another process is writing the index",
    # who asks, and how
    "wrong_token": "a token that is not this server's",
    "token_wanted": "no token was shown",
    "foreign_host": "this server was called by a name that is not its own",
    "foreign_page": "a page of another site asks",
    "content_type": "neither JSON nor multipart; content_type",
    "unknown_part": "a part of a multipart request that is neither `request` nor `image`; part",
    "bad_length": "a Content-Length that is no number",
    "bad_host": "a Host that is no name of a server",
    "request_too_slow": "the rest of the request did not come in time; seconds",
    "no_such_index": "an index of another name; name, here",
    "nothing_is_fetched": "a picture by URL",
    # the server, and its index
    "disk_full": "the disk of the index, or of uploads, is full",
    "index_missing": "there is no index (any more); index",
    "index_damaged": "nothing of the index is left; index",
    "starting": "the towers are being loaded",
    "overloaded": "too much is waiting",
    # codes that are types, for what has no better name
    **dict.fromkeys((*TYPES.values(), "internal"), "see the message"),
    "invalid": "not of the shape of the request; where, why",
}
