"use strict";
// The Plotly heatmap: fills the figure that Python made, and tells which cells were selected.
class Heatmap {
  constructor(node, cube, view, tip) {
    Object.assign(this, { node, cube, view, tip });
    this.figure = cube.figure;
    this.held = new Held(node);
    this.drawn = "";
    this.summed = "";
    this.width = node.clientWidth;
    window.addEventListener("resize", () => this.resize());
    new ResizeObserver(() => this.resize()).observe(node);
    window.addEventListener("beforeprint", () => this.fit(Math.min(node.clientWidth, Heatmap.PAPER)));
    window.addEventListener("afterprint", () => this.resize());
  }

  // Seconds.
  get bin() { return this.cube.bin_ns / 1e9; }
  get from() { return this.cube.offset_ns / 1e9; }

  // Sums by cell of the cube, and of the finer ones that are drawn where there are such.
  sum() {
    const key = [this.view.axis, this.view.kinds.join(), this.cube.part].join("|");
    if (key === this.summed) return;
    this.summed = key;
    const { cube, view: { axisNow: axis } } = this;
    this.sums = this.added(cube.row, axis.column, axis.place, axis.size, cube.bins);
    const { grid } = axis;
    this.fine = grid
      ? { ...this.added(grid, grid.y, grid.place, axis.size * grid.rows, cube.bins * grid.columns), rows: grid.rows, columns: grid.columns }
      : { ...this.sums, rows: 1, columns: 1 };
  }

  // Cell y * bins + x. The longest wait of a cell is kept whatever was merged in it.
  added({ t, kind, count, sum_ns, max_ns }, column, place, size, bins) {
    const { kindsOn } = this.view;
    const on = Uint8Array.from(this.cube.kinds, (k) => kindsOn.has(k));
    const cells = () => new Float64Array(size * bins);
    const sums = { count: cells(), time: cells(), max: cells(), bins };
    for (let i = 0; i < t.length; i++) {
      if (!on[kind[i]]) continue;
      const cell = place[column[i]] * bins + t[i];
      sums.count[cell] += count[i];
      sums.time[cell] += sum_ns[i];
      if (max_ns[i] > sums.max[cell]) sums.max[cell] = max_ns[i];
    }
    return sums;
  }

  trace() {
    this.sum();
    const { bins, rows, columns, count } = this.fine;
    const size = this.view.axisNow.size * rows;
    const values = this.fine[this.view.measure];
    const scale = Scale.of(this.view.scale, values);
    const write = this.view.measure === "count" ? Text.number : Text.limit;
    const z = Array.from({ length: size }, (_, y) => Array.from({ length: bins }, (_, x) => {
      const i = y * bins + x;
      // A wait of 0 ns is a wait: only cells without any are empty.
      return count[i] ? scale.shade(values[i]) : null;
    }));
    return {
      ...this.figure.data[0],
      z,
      // Coordinates are rows of the cube and seconds, whatever the cells.
      x0: this.from + this.bin / columns / 2, dx: this.bin / columns, y0: -0.5 + 0.5 / rows, dy: 1 / rows,
      zmin: scale.low,
      zmax: scale.high,
      colorscale: Theme.colours().heat,
      colorbar: {
        ...this.figure.data[0].colorbar,
        tickvals: scale.ticks.map(([shade]) => shade),
        ticktext: scale.ticks.map(([, value]) => write(Math.round(value))),
        tickfont: { color: Theme.colours().text, size: 11 },
      },
    };
  }

  layout() {
    const { text, line, soft, plot } = Theme.colours();
    const axis = this.axis = this.view.axisNow;
    const look = { color: text, linecolor: line, tickcolor: line, showline: true, mirror: true, tickfont: { size: 11 } };
    const [low, high] = axis.extent(this.view.kindsOn);
    const ticks = axis.ticks(low, high);
    return {
      ...this.figure.layout,
      width: this.width,
      height: this.height(),
      // What a drag does is the reader's choice, whatever is drawn next.
      dragmode: (this.node.layout || this.figure.layout).dragmode,
      plot_bgcolor: plot,
      font: { family: getComputedStyle(document.body).fontFamily, color: text, size: 12 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: text },
      selections: [],
      shapes: this.shapes(),
      newselection: { line: { color: text, width: 1, dash: "dash" } },
      // New rows begin unzoomed; a new colour keeps the zoom.
      uirevision: [this.view.axis, this.view.kinds.join(), this.cube.part].join("|"),
      xaxis: { ...this.figure.layout.xaxis, ...look, range: [this.from, this.from + this.cube.bins * this.bin] },
      yaxis: {
        ...this.figure.layout.yaxis, ...look, range: [low - 0.5, high + 0.5],
        tickvals: ticks.at, ticktext: ticks.text, minallowed: -0.5, maxallowed: axis.size - 0.5,
      },
    };
  }

  // As high as the window has room for beside what is above the plot.
  height() { return Math.max(Heatmap.LOWEST, Math.min(Heatmap.HIGHEST, window.innerHeight - Heatmap.ABOVE)); }

  // Both sizes are set here: Plotly's own way follows neither once one of them was set.
  resize() { this.fit(this.node.clientWidth); }

  async fit(width) {
    // What is not shown has no width, and comes back with one.
    if (!width) return;
    this.width = width;
    if (this.held.down) await this.held.free();
    if (!this.drawn || !this.node.layout || width !== this.width) return;
    const { layout } = this.node;
    const height = this.height();
    if (layout.width !== width || layout.height !== height) Plotly.relayout(this.node, { width, height });
  }

  shapes() {
    const colours = Theme.colours();
    const { line, cursor, plot } = colours;
    const box = ({ x0, x1, y0, y1 }, edge, fillcolor, more) => ({
      type: "rect", x0: this.from + x0 * this.bin, x1: this.from + (x1 + 1) * this.bin, y0: y0 - 0.5, y1: y1 + 0.5, line: edge, fillcolor, ...more,
    });
    const out = Bands.shapes(this.view, colours);
    for (const y of this.view.axisNow.breaks()) {
      out.push({ type: "line", xref: "paper", x0: -0.02, x1: 1, y0: y, y1: y, line: { color: line, width: 1 } });
    }
    const named = this.view.other ? ["A", "B"] : ["", ""];
    for (const [cells, colour, name] of [[this.view.cells, colours.a, named[0]], [this.view.other, colours.b, named[1]]]) {
      if (!cells) continue;
      // Two lines, light in dark: seen on every colour of the heatmap.
      out.push(box(cells, { color: plot, width: 5 }, "rgba(0,0,0,0)"));
      const label = name && { text: name, textposition: "top left", font: { color: colour, size: 16, weight: 700 } };
      out.push(box(cells, { color: colour, width: 2.5 }, "rgba(128,128,128,0.1)", label ? { label } : {}));
    }
    if (this.view.cursor) {
      const { x, y } = this.view.cursor;
      out.push(box({ x0: x, x1: x, y0: y, y1: y }, { color: cursor, width: 2 }, "rgba(0,0,0,0)"));
    }
    return out;
  }

  async draw() {
    if (this.held.down) await this.held.free();
    const key = [this.view.axis, this.view.measure, this.view.scale, this.view.kinds.join(), this.cube.part, Theme.now()].join("|");
    if (key === this.drawn) {
      await Plotly.relayout(this.node, { shapes: this.shapes(), selections: [] });
      return;
    }
    const first = this.drawn === "";
    this.drawn = key;
    await Plotly.react(this.node, [this.trace()], this.layout(), this.figure.config);
    if (first) this.listen();
  }

  listen() {
    this.held.listen();
    this.node.on("plotly_selected", (event) => {
      // Rows that are others by now say nothing about those that were dragged over.
      if (event && event.range && this.axis === this.view.axisNow) this.select(event.range.x, event.range.y);
    });
    this.node.on("plotly_click", ({ points: [point] }) => {
      const [y, x] = [Math.floor(point.pointIndex[0] / this.fine.rows), Math.floor(point.pointIndex[1] / this.fine.columns)];
      this.choose({ x0: x, x1: x, y0: y, y1: y });
    });
    this.node.on("plotly_doubleclick", () => {
      // While zooming, a double click resets the zoom.
      if (this.node.layout.dragmode === "select") this.choose(null);
    });
    this.node.on("plotly_hover", ({ points: [point], event }) => {
      const [y, x] = point.pointIndex;
      this.tip.show(event.clientX, event.clientY, this.describe(x, y, this.fine));
    });
    this.node.on("plotly_unhover", () => this.tip.hide());
  }

  // Cells that a rectangle in axis units touches, whole.
  select(xs, ys) {
    const clip = (value, size) => Math.min(size - 1, Math.max(0, value));
    const edge = 1e-9;
    const cell = (values, unit, offset, size) => {
      const low = Math.min(...values) / unit + offset;
      const high = Math.max(...values) / unit + offset;
      return [clip(Math.floor(low + edge), size), clip(Math.ceil(high - edge) - 1, size)];
    };
    const [x0, x1] = cell(xs.map((x) => x - this.from), this.bin, 0, this.cube.bins);
    const [y0, y1] = cell(ys, 1, 0.5, this.view.axisNow.size);
    this.choose({ x0, x1: Math.max(x0, x1), y0, y1: Math.max(y0, y1) });
  }

  // With the mouse: the arrow keys go on from here, not from where they were before.
  choose(cells) {
    this.view.set({ ...this.view.choice(cells), cursor: null });
  }

  // Lines about one cell, of the cube or of a finer grid.
  describe(x, y, { count, time, max, bins, rows, columns } = { ...this.sums, rows: 1, columns: 1 }) {
    const { cube } = this;
    const width = cube.bin_ns / columns;
    const from = x * width;
    const i = y * bins + x;
    const longest = cube.exact && count[i] > 1 ? ", the longest " + Text.duration(max[i]) : "";
    const { axisNow: axis } = this.view;
    const { rowOf } = rows > 1 ? axis.grid : axis;
    const lost = cube.lossesIn(from, from + width).filter((l) => !rowOf || rowOf(l.cpu) === y).reduce((sum, l) => sum + l.value, 0);
    const row = Math.floor(y / rows);
    const empty = cube.unrecorded(from, from + width, axis.gaps(row, row)) < width ? "no waits" : "not recorded";
    const lines = [
      Text.inline(rows > 1 ? axis.grid.label(y) : axis.label(row), 80),
      cube.when(from) + " – " + cube.when(from + width) + this.clock(from),
      count[i] ? `${Text.waits(count[i])}, ${Text.duration(time[i])} lost${longest}` : empty,
    ];
    if (lost) lines.push(Text.waits(lost) + " lost in a loss interval here");
    return lines;
  }

  // The cell with the most of what the colour shows.
  fullest() {
    const values = this.sums[this.view.measure];
    let best = 0;
    for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
    return { x: best % this.cube.bins, y: Math.floor(best / this.cube.bins) };
  }

  clock(ns) {
    const { start_unix_ns: unix, start_ns: start } = this.cube.facts;
    if (!unix) return "";
    const before = start ? Number(this.cube.start_ns) - start : 0;
    return " (" + new Date((unix + before + ns) / 1e6).toISOString().slice(11, 23) + " UTC)";
  }
}
Heatmap.MEASURES = { time: "time lost", count: "number of waits", max: "longest wait" };
// Pixels that paper is wide, about.
Heatmap.PAPER = 640;
Heatmap.LOWEST = 340;
Heatmap.HIGHEST = 640;
Heatmap.ABOVE = 360;
