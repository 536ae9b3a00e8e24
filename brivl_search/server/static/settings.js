// What the visitor chooses for this page and the browser remembers: language, colours, the server's token.

import { session } from "./api.js";
import { $ } from "./dom.js";
import { current, preferred, speak, t } from "./words.js";

const THEMES = ["auto", "light", "dark"];

function recall(name) {
  try {
    return localStorage.getItem(`brivl-${name}`);
  } catch {
    return null; // storage may be forbidden
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`brivl-${name}`, value);
  } catch {
    // then for this visit only
  }
}

/** `spoken()` is called after the language changed, `painted()` after the colours did. */
export function start({ spoken, painted }) {
  let theme = recall("theme");
  if (!THEMES.includes(theme)) theme = "auto";
  const paint = () => {
    document.documentElement.dataset.theme = theme;
    $("theme").querySelector("span").textContent = t(`theme_${theme}`);
    $("theme").title = t(`theme_${theme}`);
  };
  const say = (name) => {
    speak(name);
    $("language").querySelector("span").textContent = name === "zh" ? "English" : "中文";
    $("language").lang = name === "zh" ? "en" : "zh-CN";
    $("language").setAttribute("aria-label", t("language"));
    paint();
  };
  say(preferred(recall("language"), navigator.languages ?? [navigator.language]));
  $("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remember("theme", theme);
    paint();
    painted();
  });
  $("language").addEventListener("click", () => {
    const other = current() === "zh" ? "en" : "zh";
    remember("language", other);
    say(other);
    spoken();
  });
}

let asking = null;

/** Asks for the token until the server takes one; requests that wait share the question. */
export function signIn() {
  asking ??= new Promise((done) => {
    const box = $("sign-in");
    const form = box.querySelector("form");
    const refuse = (event) => event.preventDefault(); // without a token there is nothing to see
    const submit = async (event) => {
      event.preventDefault();
      let good = false;
      try {
        good = await session($("token").value);
        $("sign-in-wrong").textContent = t("wrong_token");
      } catch (error) {
        $("sign-in-wrong").textContent = t(error.kind === "busy" ? "e_busy" : "e_gone");
      }
      $("sign-in-wrong").hidden = good;
      if (!good) return $("token").select();
      box.removeEventListener("cancel", refuse);
      form.removeEventListener("submit", submit);
      $("token").value = "";
      box.close();
      asking = null;
      done();
    };
    form.addEventListener("submit", submit);
    box.addEventListener("cancel", refuse);
    $("sign-in-wrong").hidden = true;
    box.showModal();
    $("token").focus();
  });
  return asking;
}
