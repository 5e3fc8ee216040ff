"use strict";
// Colours by theme: the system's unless the reader chose; light on paper.
const Theme = (() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const HEAT = {
    light: ["#fdf1cf", "#fbd27f", "#f6a04d", "#e4632f", "#b8252b", "#6d0b2b", "#2f0420"],
    dark: ["#2a1a46", "#57217a", "#8f2a80", "#c83d6b", "#f0644f", "#fda45d", "#fbf3b0"],
  };
  const root = document.documentElement;
  const now = () => root.dataset.theme;
  let chosen = null;
  let known = {};

  // Asking for a style after a change of the page makes the browser work out all of it: asked once.
  function colours() {
    if (known.theme === now()) return known.colours;
    const style = getComputedStyle(root);
    const value = (name) => style.getPropertyValue(name).trim();
    const heat = HEAT[now()].map((c, i, all) => [i / (all.length - 1), c]);
    const found = { heat, text: value("--text"), line: value("--line"), soft: value("--soft"), plot: value("--plot"), cursor: value("--cursor"), loss: value("--bad"), a: value("--a"), b: value("--b") };
    known = { theme: now(), colours: found };
    return found;
  }

  // changed redraws what CSS cannot recolour.
  function attach(button, changed) {
    const use = (theme) => {
      if (theme === now()) return;
      root.dataset.theme = theme;
      button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
      changed();
    };
    const wanted = () => chosen || (dark.matches ? "dark" : "light");
    button.addEventListener("click", () => {
      chosen = now() === "dark" ? "light" : "dark";
      use(chosen);
    });
    dark.addEventListener("change", () => use(wanted()));
    window.addEventListener("beforeprint", () => use("light"));
    window.addEventListener("afterprint", () => use(wanted()));
    use(wanted());
  }

  return { now, colours, attach };
})();
