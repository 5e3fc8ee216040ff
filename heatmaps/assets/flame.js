"use strict";
// Draws the tree as SVG, root on top: zoom, search, keyboard, tooltip.
class Flame {
  constructor(node, tip, status) {
    Object.assign(this, { node, tip, status });
    this.zoomed = null;
    this.current = null;
    this.term = "";
    node.addEventListener("keydown", (event) => this.key(event));
    node.addEventListener("blur", () => this.tip.hide());
    new ResizeObserver(() => { if (node.clientWidth !== this.width) this.draw(); }).observe(node);
  }

  // format writes a value; it is told with every frame.
  show(root, format) {
    const path = this.pathOf(this.zoomed);
    this.root = root;
    this.format = format;
    // The same frames stay zoomed while the selection changes, where they are still there.
    this.zoomed = path.reduce((at, key) => at && at.children.get(key), root) || root;
    this.current = this.zoomed;
    this.draw();
  }

  pathOf(at) {
    const path = [];
    for (; at && at.parent; at = at.parent) path.unshift(at.kind + ":" + at.name);
    return path;
  }

  zoom(at) {
    this.zoomed = at;
    this.current = at;
    this.draw();
    if (this.onZoom) this.onZoom(at !== this.root);
  }

  search(term) {
    this.term = term.trim().toLowerCase();
    this.draw();
  }

  matches(at) { return this.term !== "" && at.name.toLowerCase().includes(this.term); }

  // Value of the outermost matching frames.
  matched(at) {
    if (this.matches(at)) return at.value;
    let sum = 0;
    for (const child of at.children.values()) sum += this.matched(child);
    return sum;
  }

  draw() {
    if (!this.root) return;
    this.width = Math.max(200, this.node.clientWidth);
    this.placed = [];
    const above = [];
    for (let at = this.zoomed.parent; at; at = at.parent) above.unshift(at);
    above.forEach((at, depth) => this.placed.push({ at, x: 0, w: this.width, depth, faded: true }));
    if (this.zoomed.value > 0) this.place(this.zoomed, 0, this.width, above.length);
    const height = (1 + Math.max(0, ...this.placed.map((p) => p.depth))) * Flame.ROW + 1;
    const svg = this.make("svg", { width: this.width, height, "aria-hidden": "true" });
    for (const place of this.placed) svg.append(this.frame(place));
    this.node.replaceChildren(svg);
    this.mark();
    if (this.term) {
      const value = this.matched(this.root);
      this.status.textContent = `Search: ${Text.percent(value, this.root.value) || "0 %"} of the width, ${this.format(value)}.`;
    } else this.status.textContent = this.root.value ? this.describe(this.zoomed).join(", ") : "No waits here.";
  }

  place(at, x, w, depth) {
    this.placed.push({ at, x, w, depth, faded: false });
    for (const child of FlameTree.ordered(at)) {
      const wide = w * child.value / at.value;
      if (wide >= Flame.NARROWEST) this.place(child, x, wide, depth + 1);
      x += wide;
    }
  }

  frame({ at, x, w, depth, faded }) {
    const y = depth * Flame.ROW;
    const group = this.make("g", { class: "frame " + (Flame.KINDS.includes(at.kind) ? at.kind : "other") + (faded ? " faded" : "") + (this.matches(at) ? " match" : ""), "data-value": at.value });
    group.append(this.make("rect", { x: x + 0.25, y: y + 0.5, width: Math.max(0.5, w - 0.5), height: Flame.ROW - 1, rx: 1.5 }));
    const letters = Math.floor((w - 6) / Flame.LETTER);
    if (letters >= 3) {
      const label = this.make("text", { x: x + 4, y: y + Flame.ROW - 5.5 });
      label.textContent = Text.short(at.name, letters);
      group.append(label);
    }
    group.addEventListener("click", () => this.zoom(at));
    group.addEventListener("mousemove", (event) => this.tip.show(event.clientX, event.clientY, this.describe(at)));
    group.addEventListener("mouseleave", () => this.tip.hide());
    at.drawn = group;
    return group;
  }

  describe(at) {
    const lines = [Text.short(at.name, 300), `${this.format(at.value)}, ${Text.percent(at.value, this.root.value)} of the selection`];
    if (at.parent && at.self && at.self !== at.value) lines.push(`${this.format(at.self)} ends here`);
    return lines;
  }

  mark() {
    for (const { at } of this.placed) at.drawn.classList.toggle("current", at === this.current && document.activeElement === this.node);
  }

  key(event) {
    if (event.altKey || event.metaKey || event.ctrlKey || !this.root) return;
    const at = this.current;
    const shown = (n) => this.placed.some((p) => p.at === n);
    const siblings = at.parent ? FlameTree.ordered(at.parent).filter(shown) : [at];
    const i = siblings.indexOf(at);
    const moves = {
      ArrowDown: () => FlameTree.ordered(at).filter(shown)[0],
      ArrowUp: () => at.parent,
      ArrowLeft: () => siblings[i - 1],
      ArrowRight: () => siblings[i + 1],
    };
    if (moves[event.key]) {
      this.current = moves[event.key]() || at;
      this.mark();
      this.status.textContent = this.describe(this.current).join(", ");
    } else if (event.key === "Enter") this.zoom(at);
    else if (event.key === "Escape") this.zoom(this.zoomed.parent || this.root);
    else return;
    event.preventDefault();
  }

  make(tag, attributes) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }
}
Flame.ROW = 19;
Flame.LETTER = 6.6;
Flame.NARROWEST = 1;
Flame.KINDS = ["kernel", "native", "jit", "other"];
