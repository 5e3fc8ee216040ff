"use strict";
// The Plotly heatmap: fills the figure that Python made, and tells which cells were selected.
class Heatmap {
  constructor(node, cube, view, tip) {
    Object.assign(this, { node, cube, view, tip });
    this.figure = cube.figure;
    this.bin = cube.bin_ns / 1e9;
    this.drawn = "";
  }

  // Rows of the heatmap, each an array over time; NaN where no wait was.
  grid() {
    const axis = this.view.axisNow;
    const values = this.view.measure === "time" ? this.cube.row.sum_ns : this.cube.row.count;
    const rows = Array.from({ length: axis.size }, () => new Float64Array(this.cube.bins).fill(NaN));
    let most = 0;
    for (const i of this.cube.selected(this.view.kindsOn, axis, null)) {
      const row = rows[axis.cellOf(i)];
      const t = this.cube.row.t[i];
      row[t] = (Number.isNaN(row[t]) ? 0 : row[t]) + values[i];
      if (row[t] > most) most = row[t];
    }
    return { rows, most };
  }

  trace() {
    const { rows, most } = this.grid();
    this.values = rows;
    const log = this.view.scale === "log";
    let least = Infinity;
    for (const row of rows) for (const v of row) if (v > 0 && v < least) least = v;
    if (least === Infinity) least = 1;
    const shade = log ? (v) => Math.log10(Math.max(v, least)) : (v) => v;
    const write = this.view.measure === "time" ? Text.limit : Text.number;
    const low = log ? Math.log10(least) : 0;
    const high = Math.max(shade(Math.max(most, 1)), low + 1e-9);
    const ticks = [];
    if (log) {
      for (let e = Math.ceil(low); e <= high; e++) ticks.push(e);
      if (ticks.length < 2) ticks.splice(0, ticks.length, low, high);
    } else for (let i = 0; i <= 4; i++) ticks.push(high * i / 4);
    return {
      ...this.figure.data[0],
      z: rows.map((row) => row.map(shade)),
      zmin: low,
      zmax: high,
      colorscale: Theme.colours().heat,
      colorbar: {
        ...this.figure.data[0].colorbar,
        tickvals: ticks,
        ticktext: ticks.map((v) => write(Math.round(log ? 10 ** v : v))),
        tickfont: { color: Theme.colours().text, size: 11 },
      },
    };
  }

  layout() {
    const { text, line } = Theme.colours();
    const axis = this.view.axisNow;
    const ticks = axis.ticks();
    const look = { color: text, linecolor: line, tickcolor: line, showline: true, mirror: true, tickfont: { size: 11 } };
    return {
      ...this.figure.layout,
      plot_bgcolor: Theme.colours().plot,
      font: { family: getComputedStyle(document.body).fontFamily, color: text },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: text },
      selections: [],
      shapes: this.shapes(),
      newselection: { line: { color: text, width: 1, dash: "dash" } },
      // A new axis begins unzoomed; a new colour keeps the zoom.
      uirevision: this.view.axis,
      xaxis: { ...this.figure.layout.xaxis, ...look },
      yaxis: {
        ...this.figure.layout.yaxis, ...look, range: [-0.5, axis.size - 0.5],
        tickvals: ticks.at, ticktext: ticks.text, minallowed: -0.5, maxallowed: axis.size - 0.5,
      },
    };
  }

  shapes() {
    const colours = Theme.colours();
    const { text, cursor, plot } = colours;
    const box = ({ x0, x1, y0, y1 }, line, fillcolor) => ({
      type: "rect", x0: x0 * this.bin, x1: (x1 + 1) * this.bin, y0: y0 - 0.5, y1: y1 + 0.5, line, fillcolor,
    });
    const out = Bands.shapes(this.cube, colours);
    if (this.view.cells) {
      // Two lines, light in dark: seen on every colour of the heatmap.
      out.push(box(this.view.cells, { color: plot, width: 4 }, "rgba(0,0,0,0)"));
      out.push(box(this.view.cells, { color: text, width: 2 }, "rgba(128,128,128,0.12)"));
    }
    if (this.view.cursor) {
      const { x, y } = this.view.cursor;
      out.push(box({ x0: x, x1: x, y0: y, y1: y }, { color: cursor, width: 2 }, "rgba(0,0,0,0)"));
    }
    return out;
  }

  async draw() {
    const key = [this.view.axis, this.view.measure, this.view.scale, this.view.kinds.join(), Theme.now()].join("|");
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
    this.node.on("plotly_selected", (event) => {
      if (event && event.range) this.select(event.range.x, event.range.y);
    });
    this.node.on("plotly_click", ({ points: [point] }) => {
      const [y, x] = point.pointIndex;
      this.view.set({ cells: { x0: x, x1: x, y0: y, y1: y } });
    });
    this.node.on("plotly_doubleclick", () => {
      // While zooming, a double click resets the zoom.
      if (this.node.layout.dragmode === "select") this.view.set({ cells: null });
    });
    this.node.on("plotly_hover", ({ points: [point], event }) => {
      const [y, x] = point.pointIndex;
      this.tip.show(event.clientX, event.clientY, this.describe(x, y));
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
    const [x0, x1] = cell(xs, this.bin, 0, this.cube.bins);
    const [y0, y1] = cell(ys, 1, 0.5, this.view.axisNow.size);
    this.view.set({ cells: { x0, x1: Math.max(x0, x1), y0, y1: Math.max(y0, y1) } });
  }

  // Lines about one cell.
  describe(x, y) {
    const from = x * this.cube.bin_ns;
    const value = this.values[y] ? this.values[y][x] : NaN;
    const what = Number.isNaN(value) ? "no waits"
      : this.view.measure === "time" ? Text.duration(value) + " lost" : Text.number(value) + " waits";
    const lost = this.cube.lossesIn(x, x).reduce((sum, l) => sum + l.value, 0);
    const lines = [
      Text.short(this.view.axisNow.label(y), 80),
      Text.seconds(from) + " – " + Text.seconds(from + this.cube.bin_ns) + this.clock(from),
      what,
    ];
    if (lost) lines.push(Text.number(lost) + " waits lost in a loss interval here");
    return lines;
  }

  clock(ns) {
    const { start_unix_ns: unix, start_ns: start } = this.cube.facts;
    if (!unix) return "";
    const before = start ? Number(this.cube.start_ns) - start : 0;
    return " (" + new Date((unix + before + ns) / 1e6).toISOString().slice(11, 23) + " UTC)";
  }
}
