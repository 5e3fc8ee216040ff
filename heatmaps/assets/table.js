"use strict";
// Tables that show their first lines until asked for all.
const Table = (() => {
  const SHOWN = 10;
  const el = Text.element;

  // heads: names of columns; lines: arrays of strings and elements; the first column is text.
  function make(title, heads, lines, note) {
    const box = el("div", { class: "table" });
    if (title) box.append(el("h3", {}, title));
    if (note) box.append(el("p", { class: "help" }, note));
    if (!lines.length) {
      box.append(el("p", { class: "help" }, "None."));
      return box;
    }
    const body = el("tbody", {}, ...lines.slice(0, SHOWN).map((line) => row("td", line)));
    const table = el("table", {}, ...(title ? [el("caption", {}, title)] : []), el("thead", {}, row("th", heads)), body);
    box.append(table);
    if (lines.length > SHOWN) {
      const more = el("button", { type: "button", class: "more" }, `Show all ${Text.number(lines.length)}`);
      // Paper has no buttons, but must say what it lacks.
      const cut = el("p", { class: "cut" }, `and ${Text.number(lines.length - SHOWN)} more`);
      more.addEventListener("click", () => {
        const rest = lines.slice(SHOWN).map((line) => row("td", line));
        body.append(...rest);
        more.remove();
        cut.remove();
        // The keyboard goes on where the new lines begin.
        rest[0].tabIndex = -1;
        rest[0].focus({ preventScroll: true });
      });
      box.append(more, cut);
    }
    return box;
  }

  function row(tag, values) {
    // Names are text wherever they are.
    const isText = (v, i) => !i || (v instanceof Element && v.classList.contains("name"));
    return el("tr", {}, ...values.map((v, i) => el(tag, { class: isText(v, i) ? null : "number", scope: tag === "th" ? "col" : null }, v)));
  }

  // A number with a bar behind it, part of whole.
  function bar(text, part, whole) {
    const node = el("span", { class: "bar-cell" }, text);
    node.style.setProperty("--part", (whole ? 100 * part / whole : 0) + "%");
    return node;
  }

  return { make, bar };
})();
