"use strict";
// Both sides' waits by length: how many a second (or trace) were at least so long, with their bands.
class Curves {
  constructor(node, tip, per) {
    Object.assign(this, { node, tip, per });
    new ResizeObserver(() => { if (this.curve && node.clientWidth !== this.width) this.draw(); }).observe(node);
  }

  show(curve) {
    this.curve = curve;
    this.draw();
  }

  draw() {
    const { at, a, b } = this.curve;
    const { LEFT, RIGHT, TOP, BOTTOM, HEIGHT } = Curves;
    this.width = this.node.clientWidth;
    const all = [a, b].flatMap((s) => s.value).filter((v) => v > 0);
    const above = [a, b].flatMap((s) => s.high || []);
    if (at.length < 2 || !all.length) {
      this.node.replaceChildren(Text.element("p", { class: "help" }, "No waits."));
      return;
    }
    const [least, most] = [Math.log10(Math.min(...all)) - 0.15, Math.log10(Math.max(...all, ...above)) + 0.15];
    const [first, last] = [Math.log10(at[0]), Math.log10(at[at.length - 1])];
    const x = (ns) => LEFT + (this.width - LEFT - RIGHT) * (Math.log10(ns) - first) / (last - first);
    const y = (v) => TOP + (HEIGHT - TOP - BOTTOM) * (most - Math.max(least, v > 0 ? Math.log10(v) : least)) / (most - least);
    const svg = Text.svg("svg", { width: this.width, height: HEIGHT, viewBox: `0 0 ${this.width} ${HEIGHT}`, class: "curves", role: "img", "aria-label": "Distribution of both sides; the tables have the numbers" });
    this.grid(svg, x, y, [first, last], [least, most]);
    for (const [side, name] of [[a, "a"], [b, "b"]]) {
      if (side.low) svg.append(Text.svg("path", { d: Curves.path(at, side.high, x, y) + Curves.path([...at].reverse(), [...side.low].reverse(), x, y).replace("M", "L") + "Z", class: "spread side-" + name }));
    }
    for (const [side, name] of [[a, "a"], [b, "b"]]) svg.append(Text.svg("path", { d: Curves.path(at.slice(0, Curves.end(side)), side.value, x, y), class: "curve side-" + name }));
    svg.addEventListener("mousemove", (event) => this.hover(event, x));
    svg.addEventListener("mouseleave", () => this.tip.hide());
    this.node.replaceChildren(svg);
  }

  // Where a curve has come down to nothing.
  static end({ value }) {
    const zero = value.findIndex((v) => v <= 0);
    return zero < 0 ? value.length : zero + 1;
  }

  static path(at, values, x, y) {
    return "M" + at.map((ns, i) => `${x(ns).toFixed(1)},${y(values[i]).toFixed(1)}`).join("L");
  }

  grid(svg, x, y, [first, last], [least, most]) {
    const { LEFT, RIGHT, TOP, BOTTOM, HEIGHT } = Curves;
    const text = (attributes, words) => svg.append(Text.svg("text", attributes, words));
    for (const ns of Curves.ticks(first, last)) {
      const at = x(ns);
      svg.append(Text.svg("line", { x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM, class: "grid" }));
      // None is cut by the edge.
      text({ x: Math.min(at + Curves.HALF, this.width) - Curves.HALF, y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, Text.limit(+ns.toPrecision(3)));
    }
    for (const value of Curves.ticks(least, most)) {
      const at = y(value);
      svg.append(Text.svg("line", { x1: LEFT, x2: this.width - RIGHT, y1: at, y2: at, class: "grid" }));
      text({ x: LEFT - 6, y: at + 4, "text-anchor": "end" }, Curves.number(value));
    }
    text({ x: LEFT, y: 10, class: "side" }, `waits per ${this.per}, at least so long`);
  }

  // Powers of ten, where few of those are between the limits (log10) more, at least the limits.
  static ticks(low, high) {
    const step = Math.max(1, Math.ceil((high - low) / Curves.MOST_TICKS));
    for (const digits of [[1], [1, 2, 5]]) {
      const found = [];
      for (let e = Math.floor(low); e <= high; e++) {
        for (const value of digits.map((digit) => digit * 10 ** e)) if (e % step === 0 && Math.log10(value) >= low && Math.log10(value) <= high) found.push(value);
      }
      if (found.length > 1) return found;
    }
    return [10 ** low, 10 ** high];
  }

  static number(v) { return v.toLocaleString("en", { maximumSignificantDigits: 3 }); }

  hover(event, x) {
    const { at, a, b } = this.curve;
    const box = this.node.getBoundingClientRect();
    const distance = at.map((ns) => Math.abs(x(ns) - (event.clientX - box.left)));
    const i = distance.indexOf(Math.min(...distance));
    this.tip.show(event.clientX, event.clientY, [`at least ${Text.duration(at[i])}`, `A ${this.words(a, i)}`, `B ${this.words(b, i)}`]);
  }

  words(side, i) {
    const between = side.low ? ` (${Curves.number(side.low[i])} to ${Curves.number(side.high[i])})` : "";
    return `${Curves.number(side.value[i])} per ${this.per}${between}`;
  }

  table() {
    const { at, a, b } = this.curve;
    return Table.make("", ["at least", "A", "B"], at.map((ns, i) => [Text.duration(ns), this.words(a, i), this.words(b, i)]));
  }
}
Curves.LEFT = 62;
Curves.RIGHT = 12;
Curves.TOP = 18;
Curves.BOTTOM = 24;
Curves.HEIGHT = 240;
// Half of what a tick's label is wide.
Curves.HALF = 22;
Curves.MOST_TICKS = 10;
