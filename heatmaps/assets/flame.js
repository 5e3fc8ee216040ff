"use strict";
// Draws the tree as SVG, root on top: zoom, search, keyboard, tooltip.
class Flame {
  constructor(node, tip, status) {
    Object.assign(this, { node, tip, status });
    this.zoomed = null;
    this.current = null;
    this.term = "";
    this.placed = [];
    this.nothing = "No waits here.";
    node.addEventListener("keydown", (event) => this.key(event));
    node.addEventListener("blur", () => this.tip.hide());
    node.addEventListener("focus", () => this.mark());
    const on = (event) => {
      const group = event.target.closest("g.frame");
      return group && this.placed[group.dataset.i].at;
    };
    node.addEventListener("click", (event) => {
      if (!on(event)) return;
      this.zoom(on(event));
      // Another frame is below the pointer now.
      this.tip.hide();
    });
    node.addEventListener("mousemove", (event) => {
      const at = on(event);
      if (at) this.tip.show(event.clientX, event.clientY, this.describe(at));
      else this.tip.hide();
    });
    node.addEventListener("mouseleave", () => this.tip.hide());
    new ResizeObserver(() => { if (this.measure()) this.draw(); }).observe(node);
  }

  // Size of the place it is drawn in, and whether that has changed. Asked when it does, not when
  // something is drawn: that would have the browser lay out the page in between.
  measure() {
    const { width, room } = this;
    this.width = Math.max(200, this.node.clientWidth);
    // Height that the page gives it beside the heatmap; 0 where it takes what it needs.
    this.room = getComputedStyle(this.node).flexGrow === "1" ? this.node.clientHeight - 2 : 0;
    return width !== this.width || room !== this.room;
  }

  // format writes a value; it is told with every frame.
  show(tree, format) {
    const path = this.pathOf(this.zoomed);
    Object.assign(this, { tree, root: tree.root, format });
    // The same frames stay zoomed while the selection changes, where they are still there.
    this.zoomed = path.reduce((at, key) => at && at.children.find((c) => c.key === key), this.root) || this.root;
    this.current = this.zoomed;
    this.draw();
    this.tell();
  }

  pathOf(at) {
    const path = [];
    for (; at && at.parent; at = at.parent) if (!at.together) path.unshift(at.key);
    return path;
  }

  zoom(at) {
    // It would be no less blank.
    if (at.together && this.width * at.children[0].width / at.width < Flame.NARROWEST) return;
    this.zoomed = at;
    this.current = at;
    this.draw();
    this.tell();
  }

  tell() {
    if (this.onZoom) this.onZoom(this.zoomed !== this.root);
  }

  search(term) {
    this.term = term.trim().toLowerCase();
    this.draw();
  }

  matches(name) { return this.term !== "" && name.toLowerCase().includes(this.term); }

  // What has no name of its own is not counted, and not marked.
  isFound({ name, parent, together }) { return Boolean(parent) && !together && this.matches(name); }

  draw() {
    if (!this.root) return;
    if (this.width === undefined) this.measure();
    this.placed = [];
    const above = [];
    for (let at = this.zoomed.parent; at; at = at.parent) above.unshift(at);
    above.forEach((at, depth) => this.placed.push({ at, x: 0, w: this.width, depth, faded: true }));
    if (this.zoomed.width > 0) this.place(this.zoomed, 0, this.width, above.length);
    const rows = 1 + this.placed.reduce((most, p) => Math.max(most, p.depth), 0);
    // Few frames may be higher, so that they fill the room there is.
    this.row = Math.max(Flame.ROW, Math.min(Flame.HIGHEST, Math.floor(this.room / rows)));
    const height = rows * this.row + 1;
    this.blank = Text.svg("g", {});
    this.blank.append(Text.svg("rect", { height: this.row - 1 }));
    const svg = Text.svg("svg", { width: this.width, height, viewBox: `0 0 ${this.width} ${height}`, "aria-hidden": "true" });
    svg.append(...this.placed.map((place, i) => this.frame(place, i)));
    this.node.replaceChildren(svg);
    this.mark();
    this.status.textContent = this.term ? this.found() : this.root.width ? this.describe(this.zoomed).join(", ") : this.nothing;
  }

  found() {
    const { a, b, width } = this.tree.matched((name) => this.matches(name));
    const values = this.tree.two ? `A ${this.format(a)}, B ${this.format(b)}` : this.format(a);
    return `Search: ${Text.percent(width, this.root.width) || "0 %"} of the width, ${values}.`;
  }

  place(at, x, w, depth) {
    this.placed.push({ at, x, w, depth, faded: false });
    const wide = (child) => w * child.width / at.width;
    for (const [i, child] of at.children.entries()) {
      // Children are in order of width.
      if (wide(child) < Flame.NARROWEST) {
        const narrow = this.tree.together(at, at.children.slice(i));
        if (wide(narrow) >= Flame.NARROWEST) this.placed.push({ at: narrow, x, w: wide(narrow), depth: depth + 1, faded: false });
        break;
      }
      this.place(child, x, wide(child), depth + 1);
      x += wide(child);
    }
  }

  frame({ at, x, w, depth, faded }, i) {
    const y = depth * this.row;
    const look = this.tree.two ? "both" : Flame.KINDS.includes(at.kind) ? at.kind : "other";
    const state = (at.together ? " together" : "") + (faded ? " faded" : "") + (this.isFound(at) ? " match" : "");
    // A copy is made faster than a new element.
    const group = this.blank.cloneNode(true);
    const rect = group.firstChild;
    group.setAttribute("class", `frame ${look}${state}`);
    group.setAttribute("data-i", i);
    group.setAttribute("data-value", at.a);
    rect.setAttribute("x", x + 0.25);
    rect.setAttribute("y", y + 0.5);
    rect.setAttribute("width", w - 0.5);
    if (this.tree.two) {
      group.setAttribute("data-other", at.b);
      rect.style.fill = this.colour(at);
    }
    if (at.ran || at.ranB) {
      group.dataset.ran = at.ran;
      if (this.tree.two) group.dataset.otherRan = at.ranB;
      const share = this.tree.width(at.ran, at.ranB) / at.width;
      group.append(Text.svg("rect", { x: x + 0.25, y: y + this.row - 5, width: Math.max(0.5, (w - 0.5) * share), height: 4, class: "ran" }));
    }
    const letters = Math.floor((w - 6) / Flame.LETTER);
    if (letters >= 3) {
      // Above the strip of what ran.
      const middle = (this.row - (this.tree.ran ? 4 : 0)) / 2;
      group.append(Text.svg("text", { x: x + 4, y: y + middle + 4 }, Text.short(at.name, letters)));
    }
    at.drawn = group;
    return group;
  }

  // From less (all of it in A) over the same to more (all of it in B).
  colour(at) {
    const { scale } = this.tree;
    const [a, b] = [at.a * scale.a, at.b * scale.b];
    const share = a + b ? (b - a) / (a + b) : 0;
    return `color-mix(in srgb, var(${share < 0 ? "--less" : "--more"}) ${Math.round(100 * Math.min(1, 1.4 * Math.abs(share)))}%, var(--same))`;
  }

  describe(at) {
    if (at.together) return [...this.describeFrame(at), "the table has them all"];
    return this.describeFrame(at);
  }

  describeFrame(at) {
    if (this.tree.two) return this.describeBoth(at);
    if (this.tree.ran) return this.describeRan(at);
    const lines = [Text.inline(at.name, 300), `${this.format(at.a)}, ${Text.percent(at.a, this.root.a)} of the selection`];
    if (!this.tree.inverted && at.parent && at.self && at.self !== at.a) lines.push(`${this.format(at.self)} ends here`);
    return lines;
  }

  describeRan(at) {
    const of = this.waitedAndRan(at, at.a, at.ran);
    return [Text.inline(at.name, 300), `${this.format(at.a)}, ${Text.percent(at.a, this.root.a)} of it all`, ...(of ? [of] : [])];
  }

  // What of a value was waiting and what running; nothing where a split tells.
  waitedAndRan(at, value, ran) {
    if (!this.tree.ran || (this.tree.split && at.parent)) return "";
    return `waited ${this.format(value - ran)}, ran ${this.format(ran)}`;
  }

  describeBoth(at) {
    const { scale, root } = this.tree;
    const [a, b] = [at.a * scale.a, at.b * scale.b];
    const change = Math.abs(a - b) < 1e-9 * (a + b) ? "the same" : a && b ? `${(b / a).toLocaleString("en", { maximumSignificantDigits: 3 })} times A's` : a ? "only in A" : "only in B";
    const side = (name, value, whole, ran) => {
      const of = this.waitedAndRan(at, value, ran);
      return `${name} ${this.format(value)}, ${Text.percent(value, whole) || "0 %"}${of && `: ${of}`}`;
    };
    return [
      Text.inline(at.name, 300),
      side("A", at.a, root.a, at.ran),
      side("B", at.b, root.b, at.ranB),
      `${this.scaleName} in B: ${change}`,
    ];
  }

  mark() {
    if (this.marked) this.marked.classList.remove("current");
    this.marked = document.activeElement === this.node && this.current.drawn;
    if (this.marked) this.marked.classList.add("current");
  }

  key(event) {
    if (event.altKey || event.metaKey || event.ctrlKey || !this.root) return;
    const at = this.current;
    const shown = (n) => this.placed.some((p) => p.at === n);
    const below = (n) => this.placed.map((p) => p.at).filter((p) => p.parent === n);
    const siblings = at.parent ? below(at.parent) : [at];
    const i = siblings.indexOf(at);
    const moves = {
      ArrowDown: () => at.children.find(shown) || below(at)[0],
      ArrowUp: () => at.parent,
      ArrowLeft: () => siblings[i - 1],
      ArrowRight: () => siblings[i + 1],
    };
    if (moves[event.key]) {
      this.current = moves[event.key]() || at;
      this.mark();
      if (this.current.drawn) this.current.drawn.scrollIntoView({ block: "nearest" });
      this.status.textContent = this.describe(this.current).join(", ");
    } else if (event.key === "Enter") this.zoom(at);
    else if (event.key === "Escape") this.zoom(this.zoomed.parent || this.root);
    else return;
    event.preventDefault();
  }
}
Flame.ROW = 19;
Flame.HIGHEST = 30;
Flame.LETTER = 6.6;
// Pixels. Narrower frames cost most of the time and show nothing; zooming draws them.
Flame.NARROWEST = 3;
Flame.KINDS = ["kernel", "native", "jit", "go", "python", "other"];
