// Pictures that are picked, dropped or pasted.

import { $ } from "./dom.js";
import { keep } from "./pictures.js";

let handlers = {};
let pickedFor = 0;

/** Handlers: check(file) → whether it may be used, use(name, sign) of a picture that was kept, unreadable(). */
export function start(given) {
  handlers = given;
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (file) take(file, pickedFor);
  });
  listenForDrops();
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    take(file);
  });
}

/** Asks for a file; `sign` of the term it becomes, 0: to search with it alone. */
export function pick(sign) {
  pickedFor = sign;
  $("file").click();
}

async function take(file, sign = 0) {
  if (!handlers.check(file)) return;
  const name = await keep(file);
  if (name) handlers.use(name, sign);
  else handlers.unreadable();
}

function listenForDrops() {
  let own = false; // a picture of this page that is dragged about is not meant
  let depth = 0;
  const carries = (event) => !own && [...(event.dataTransfer?.types ?? [])].includes("Files");
  const on = (kind, handle) => document.addEventListener(kind, handle);
  on("dragstart", () => (own = true));
  on("dragend", () => (own = false));
  on("dragenter", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth++;
    $("drop").hidden = false;
  });
  on("dragover", (event) => {
    if (carries(event)) event.preventDefault();
  });
  on("dragleave", (event) => {
    if (carries(event) && --depth <= 0) {
      depth = 0;
      $("drop").hidden = true;
    }
  });
  on("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    $("drop").hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
}
