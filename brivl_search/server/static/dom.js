// Building the page without HTML strings: whatever comes from the collection is text, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (`data-…`, `aria-…`, `role`, `lang`, …) and children; strings become text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "class") node.className = value;
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** A line icon from the path data of a 24 × 24 box. */
export function icon(path) {
  const names = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(names, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(names, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

// Characters that turn the direction of text or move the cursor could disguise a file name.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

/** A name or a caption as one line of harmless text. */
export const plain = (text) => String(text ?? "").replace(UNSEEN, "\ufffd");

export const baseName = (path) => plain(String(path ?? "").replace(/.*\//, ""));

/** Calls `work` once things have been quiet for `wait` milliseconds. */
export function settled(work, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}
