// The server's lines that the page knows: what they mean, so that the page can say it in words and language of its own.

// A group "kind" or "reason" completes the name of the words; the other groups fill their places.
const KNOWN = [
  [/^`where` (?<name>.+): no (?<kind>image|text) of the index has such a field \(there are: (?<there>.*)\)$/su, "field"],
  [/^`min_match` needs a match/u, "no_match"],
  [/^`(?:after|before|min_size)` /u, "filter"],
  [/ holds no captions\b/u, "no_texts"],
  [/ holds no images\b/u, "no_photos"],
  [/^the terms cancel each other out/u, "cancel"],
  [/^text: more than (?<n>[\d,]+) characters/u, "long"],
  [/^\d+ terms: this server takes (?<n>\d+)/u, "terms"],
  [/^\d+ pictures: this server takes (?<n>\d+)/u, "pictures"],
  [/^Too many files\. Maximum number of files is (?<n>\d+)/u, "pictures"],
  [/^the (?:picture|request) is larger than [\d,]+ bytes/u, "large"],
  [/^the picture cannot be used: (?<reason>[a-z ]+)(?::|$)/u, "picture"],
  [/^no index at /u, "index"],
];

/** { kind, values } for words `e_${kind}`, of a line of the server; null if the page does not know it. */
export function understood(message) {
  for (const [pattern, name] of KNOWN) {
    const found = pattern.exec(message);
    if (!found) continue;
    const { kind, reason, ...values } = found.groups ?? {};
    if (reason) values.reason = `r_${reason.replaceAll(" ", "_")}`;
    return { kind: kind ? `${name}_${kind}` : name, values };
  }
  return null;
}
