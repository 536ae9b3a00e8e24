// Pictures that were dropped, pasted or picked. They live as long as this page: its address only names them.

const kept = new Map(); // name that stands in the address → { content, name, url }
const bad = new Set(); // values of terms that cannot be searched with

let count = 0;

/** Takes a file's content into memory, since the file may change; its name for the address, or null if it is unreadable. */
export async function keep(file) {
  let content;
  try {
    content = new Blob([await file.arrayBuffer()], { type: file.type });
  } catch {
    return null; // a folder, or gone meanwhile
  }
  if (!content.size) return null;
  const name = `p${Date.now().toString(36)}${count++}`;
  kept.set(name, { content, name: file.name, url: URL.createObjectURL(content) });
  return name;
}

/** { content, name, url } of a term's picture; undefined if this page never had it. */
export const keptAs = (value) => kept.get(value);

/** Whether a term may be searched with, as far as is known. */
export const usable = (term) => !(term.kind === "picture" && !kept.has(term.value)) && !bad.has(term.value);

/** From now on these terms are left out. */
export function refuse(terms) {
  for (const { value } of terms) bad.add(value);
}

/** Of terms that are dropped pictures, those that the browser cannot show either; all of them if it can show all. */
export async function suspects(terms) {
  const pictures = terms.filter((term) => term.kind === "picture");
  if (pictures.length < 2) return pictures;
  const broken = await Promise.all(pictures.map((term) => createImageBitmap(kept.get(term.value).content).then(() => false, () => true)));
  return broken.includes(true) ? pictures.filter((_, n) => broken[n]) : pictures;
}
