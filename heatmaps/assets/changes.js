"use strict";
// Figures of two sides with the interval of their difference, as lines of a table.
const Changes = (() => {
  const WIDTH = 72;
  const HEIGHT = 14;
  const RADIUS = 3;

  const isCount = (change) => change.name === "waits";
  const amount = (v) => v.toLocaleString("en", { maximumFractionDigits: 1 });
  const formatOf = (change) => (isCount(change) ? amount : Text.duration);

  // name: what the first column says.
  function line(change, name, format = formatOf(change)) {
    const { a, b, low, high, difference } = change;
    const value = (v) => (v === null ? "–" : format(v));
    const between = low === null ? "" : `${Text.signed(low, format)} to ${Text.signed(high, format)}`;
    return [name, value(a), value(b), difference === null ? "–" : Text.signed(difference, format), between, whisker(change), verdict(change)];
  }

  // A table of lines, which may be wider than its place: it scrolls by keyboard, too.
  function table(title, what, lines) {
    const box = Table.make(title, heads(what), lines);
    for (const [name, value] of [["class", "table changes"], ["tabindex", "0"], ["role", "region"], ["aria-label", title || what]]) box.setAttribute(name, value);
    return box;
  }

  const unseen = (words) => Text.element("span", { class: "hidden" }, words);
  const heads = (what) => [what, "A", "B", "B − A", "95 % confidence", unseen("drawn"), unseen("verdict")];

  function verdict(change) {
    if (!change.certain) return "";
    const more = change.low > 0;
    const words = isCount(change) ? ["more", "fewer"] : ["slower", "faster"];
    return Text.element("b", { class: more ? "worse" : "better" }, words[more ? 0 : 1]);
  }

  // The interval about zero, in parts of the larger side, or of itself where it is longer.
  function whisker({ a, b, low, high, difference }) {
    if (low === null) return "";
    const whole = Math.max(a || 0, b || 0, Math.abs(low), Math.abs(high));
    if (!whole) return "";
    const x = (v) => WIDTH / 2 + (WIDTH / 2 - RADIUS) * v / whole;
    const svg = Text.svg("svg", { width: WIDTH, height: HEIGHT, class: "whisker", "aria-hidden": "true" });
    svg.append(
      Text.svg("line", { x1: WIDTH / 2, x2: WIDTH / 2, y1: 0, y2: HEIGHT, class: "zero" }),
      Text.svg("rect", { x: x(low), y: 5, width: Math.max(1, x(high) - x(low)), height: 4, class: low > 0 ? "worse" : high < 0 ? "better" : "unsure" }),
      Text.svg("circle", { cx: x(difference), cy: 7, r: RADIUS }),
    );
    return svg;
  }

  return { line, table };
})();
