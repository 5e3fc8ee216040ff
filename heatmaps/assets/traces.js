"use strict";
// The slowest distributed traces, and one of them as a timeline of its threads and goroutines.
class Traces {
  constructor(node, cube, view, trie) {
    Object.assign(this, { node, cube, view, widest: Infinity });
    this.renew(trie);
    new ResizeObserver(() => {
      const { width } = this;
      this.width = node.clientWidth;
      if (this.chosen && width !== this.width) this.draw();
    }).observe(node);
    // Words of a timeline that is made to fit the paper are too small to be read.
    for (const [event, widest] of [["beforeprint", Heatmap.PAPER], ["afterprint", Infinity]]) {
      window.addEventListener(event, () => {
        this.widest = widest;
        if (this.chosen) this.draw();
      });
    }
  }

  // The cube is another one now.
  renew(trie) {
    this.trie = trie;
    this.waits = Decode.group(this.cube.columns, "traces");
    this.first = this.cube.traces.map((_, i) => Cube.firstFrom(this.waits.trace, i));
  }

  // Traces that waited within the selected times, and in which of them.
  inSelection() {
    const { cells, other } = this.view;
    const { bin_ns } = this.cube;
    const within = (t, { x0, x1 }) => t.end > x0 * bin_ns && t.start < (x1 + 1) * bin_ns;
    const sides = [["A", cells], ["B", other]].filter(([, c]) => c);
    const all = this.cube.traces.map((t) => ({ ...t, sides: sides.filter(([, c]) => within(t, c)).map(([name]) => name) }));
    return cells ? all.filter((t) => t.sides.length) : all;
  }

  draw() {
    const el = Text.element;
    if (this.width === undefined) this.width = this.node.clientWidth;
    const shown = this.inSelection();
    const two = Boolean(this.view.other);
    const kept = this.cube.traces.length;
    const which = `${kept < this.cube.traces_of ? `${kept} slowest of ${Text.number(this.cube.traces_of)} traces` : "traces"} ${this.cube.part ? "that waited in this part" : "of the recording"}`;
    const when = two ? "the time of A or of B" : this.view.cells ? "the selected time" : "";
    const note = when ? `Of the ${which} those that were under way in ${when}; figures are of whole traces.` : `The ${which}, by time lost.`;
    this.chosen = this.cube.traces.find((t) => t.id === this.view.trace) || null;
    const heads = ["trace", "time lost", "waits", "longest", "blocked", "lanes", "from first to last", "began", ...(two ? ["in"] : [])];
    const list = Table.make("", heads, shown.map((t) => [
      this.button(t), Table.bar(Text.duration(t.ns), t.ns, shown[0].ns), Text.number(t.count), Text.duration(t.max), Text.duration(t.blocked),
      Text.number(t.lanes), Text.duration(t.end - t.start), this.cube.when(Math.max(0, t.start)),
      ...(two ? [el("span", {}, ...t.sides.map((s) => el("b", { class: "which " + s.toLowerCase() }, s)))] : []),
    ]));
    this.node.replaceChildren(el("p", { class: "help" }, note), list, ...(this.chosen ? this.one(this.chosen) : []));
    this.node.dataset.shown = shown.map((t) => t.id).join(" ");
  }

  button(trace) {
    const node = Text.element("button", { type: "button", class: "trace-id", "aria-pressed": String(trace.id === this.view.trace) }, Text.short(trace.id, 40));
    node.addEventListener("click", () => {
      this.view.set({ trace: trace.id === this.view.trace ? "" : trace.id });
      const same = [...this.node.querySelectorAll(".trace-id")].find((b) => b.textContent === node.textContent);
      if (same) same.focus({ preventScroll: true });
    });
    return node;
  }

  // Waits of one trace by lane, the lane that lost most first.
  lanes(number) {
    const { lane, kind, because, end_ns, wait_ns } = this.waits;
    const from = this.first[number];
    const to = number + 1 < this.first.length ? this.first[number + 1] : lane.length;
    const lanes = new Map();
    for (let i = from; i < to; i++) {
      if (!lanes.has(lane[i])) lanes.set(lane[i], { name: this.cube.trace_lanes[lane[i]], lost: 0, waits: [] });
      const kindName = this.cube.trace_kinds[kind[i]];
      const one = { kind: kindName, from: end_ns[i] - wait_ns[i], ns: wait_ns[i], because: this.cube.trace_because[because[i]] };
      lanes.get(lane[i]).waits.push(one);
      if (this.cube.lost_kinds.includes(kindName)) lanes.get(lane[i]).lost += one.ns;
    }
    return [...lanes.values()].sort((a, b) => b.lost - a.lost);
  }

  one(trace) {
    const el = Text.element;
    const lanes = this.lanes(this.cube.traces.indexOf(trace));
    const kinds = [...new Set(lanes.flatMap((l) => l.waits.map((w) => w.kind)))];
    const key = el("p", { class: "keys" }, ...kinds.flatMap((k) => [el("span", { class: "key wait " + Traces.look(k) }, Text.safe(Text.kind(k))), " "]));
    const hidden = trace.hidden ? ` Its ${Text.number(trace.hidden)} shortest waits are not drawn.` : "";
    const named = Text.namer(lanes.map((l) => l.name));
    const rows = lanes.flatMap((l) => l.waits.map((w) => [
      named(l.name), Text.name(Text.kind(w.kind)), Text.duration(w.from), Text.duration(w.ns), Text.name(w.because, 36),
    ]));
    const table = el("details", {}, el("summary", {}, "The same as a table"),
      Table.make("", ["who", Text.name("waited for"), "after", "for", Text.name("because of")], rows));
    return [el("h3", { class: "trace-title" }, "Trace ", Text.name(trace.id, 40)), el("p", { class: "help" }, "Between its waits a thread ran, or worked for something else." + hidden),
      key, this.timeline(trace, lanes), table, ...this.running(trace)];
  }

  // What profiles saw running for it.
  running(trace) {
    const found = Profiles.ofTrace(this.cube, this.trie, this.cube.traces.indexOf(trace));
    if (!found.length) return [];
    const all = found.reduce((sum, f) => sum + f.ns, 0);
    const rows = found.map((f) => [Text.name(f.name, 90), Table.bar(Text.duration(f.ns), f.ns, all)]);
    return [Text.element("p", { class: "help" }, `On the CPU for it, by the profiles' samples with its id: ${Text.duration(all)}.`),
      Table.make("", ["function", "ran"], rows)];
  }

  timeline(trace, lanes) {
    const { ROW, TOP } = Traces;
    const width = Math.max(260, Math.min(this.width, this.widest) - 4);
    const letters = Math.max(...lanes.map((lane) => [...Text.safe(lane.name)].length));
    const label = Math.min(Math.ceil(letters * Traces.LETTER) + 12, Traces.LABEL, Math.floor(width / 3));
    const ticks = width < 600 ? 2 : 4;
    const span = Math.max(1, trace.end - trace.start);
    const x = (ns) => label + (width - label - 10) * ns / span;
    const svg = Text.svg("svg", { width, height: TOP + ROW * lanes.length + 4, viewBox: `0 0 ${width} ${TOP + ROW * lanes.length + 4}`, class: "timeline", role: "img", "aria-label": "Waits of the trace by thread; the table below has the numbers" });
    for (let i = 0; i <= ticks; i++) {
      const at = span * i / ticks;
      svg.append(Text.svg("line", { x1: x(at), x2: x(at), y1: TOP - 4, y2: TOP + ROW * lanes.length, class: "grid" }));
      svg.append(Text.svg("text", { x: x(at), y: 11, "text-anchor": i === ticks ? "end" : "middle", class: "side" }, Text.duration(at)));
    }
    const form = Text.shorts(lanes.map((lane) => lane.name), Math.floor((label - 12) / Traces.LETTER));
    lanes.forEach((lane, row) => {
      const y = TOP + row * ROW;
      const name = Text.svg("text", { x: label - 8, y: y + ROW / 2 + 4, "text-anchor": "end" }, form(lane.name));
      const [first, last] = [Math.min(...lane.waits.map((w) => w.from)), Math.max(...lane.waits.map((w) => w.from + w.ns))];
      svg.append(name, Text.svg("rect", { x: x(first), y: y + ROW / 2 - 1, width: x(last) - x(first), height: 2, class: "lane" }));
      for (const wait of lane.waits) svg.append(this.bar(wait, lane, x, y));
    });
    return svg;
  }

  bar(wait, lane, x, y) {
    const bar = Text.svg("rect", { x: x(wait.from), y: y + 3, width: Math.max(1, x(wait.from + wait.ns) - x(wait.from)), height: Traces.ROW - 6, class: "wait " + Traces.look(wait.kind), "data-ns": wait.ns });
    return Tip.over(bar, [
      Text.short(lane.name, 80), `${Text.inline(Text.kind(wait.kind))} for ${Text.duration(wait.ns)}, ${Text.duration(wait.from)} after the first wait began`,
      Text.short(wait.because, 80),
    ]);
  }

  // A parked goroutine looks as what is blocked.
  static look(kind) { return kind === "goroutine_blocked" ? "blocked" : Traces.KINDS.includes(kind) ? kind : "other"; }
}
Traces.KINDS = ["runq_wakeup", "runq_preempt", "throttled", "blocked", "goroutine", "stw", "gil", "loop"];
Traces.LABEL = 320;
Traces.LETTER = 7;
Traces.ROW = 22;
Traces.TOP = 22;
