"use strict";
// What the heatmap's rows are. An axis gives each row of the cube its place, labels the places, and
// knows which culprits a selection on it can tell apart.
const Axes = (() => {
  const MAX_ROWS = 60;
  const LABEL = 14;
  const REST = "all others";

  class LatencyAxis {
    constructor(cube) {
      let low = Infinity;
      let high = -1;
      for (const b of cube.row.b) {
        if (b < low) low = b;
        if (b > high) high = b;
      }
      this.cube = cube;
      this.name = "latency";
      this.title = "wait";
      // One empty row above and below, so that nothing hides at an edge.
      this.first = Math.max(0, Math.min(low, high) - 1);
      this.size = high < 0 ? 1 : Math.min(cube.low_ns.length - 1, high + 1) - this.first + 1;
    }

    cellOf(i) { return this.cube.row.b[i] - this.first; }
    label(y) { return Text.between(this.cube.low_ns[y + this.first], this.cube.highOf(y + this.first) === null ? null : this.cube.low_ns[y + this.first + 1]); }
    range(y0, y1) {
      const top = y1 + this.first + 1;
      return Text.between(this.cube.low_ns[y0 + this.first], top < this.cube.low_ns.length ? this.cube.low_ns[top] : null);
    }

    // Limits in ns: from the first, below the second; null for no end.
    exactly(y0, y1) {
      const top = this.cube.low_ns[y1 + this.first + 1];
      return [this.cube.low_ns[y0 + this.first], top === undefined ? null : top];
    }

    // Ticks at 1, 10, 100 ns ...; between two limits of buckets in proportion.
    ticks() {
      const low = this.cube.low_ns;
      const at = [];
      const text = [];
      for (let ns = 10; ns <= low[low.length - 1]; ns *= 10) {
        let b = low.findIndex((l) => l > ns) - 1;
        const y = b + (ns - low[b]) / (low[b + 1] - low[b]) - this.first - 0.5;
        if (y < -0.5 || y > this.size - 0.5) continue;
        at.push(y);
        text.push(Text.limit(ns));
      }
      return { at, text };
    }

    coversCulprits(cells) { return cells.y0 <= 0 && cells.y1 >= this.size - 1; }
    takesCulprit() { return true; }
  }

  // CPUs, cgroups, policies or kinds, the one with most time lost on top; CPUs in their order.
  class NamedAxis {
    constructor(cube, name, title) {
      this.cube = cube;
      this.name = name;
      this.title = title;
      this.column = cube.row[name];
      const all = [];
      for (let i = 0; i < cube.length; i++) if (cube.kinds[cube.row.kind[i]] !== "blocked") all.push(i);
      const order = cube.by(name, all).map((s) => s.key);
      const known = new Set(order);
      cube.names[name].forEach((_, key) => { if (!known.has(key)) order.push(key); });
      if (name === "cpu") order.sort((a, b) => cube.cpus[a] - cube.cpus[b]);
      this.rest = order.length > MAX_ROWS ? order.length - (MAX_ROWS - 1) : 0;
      this.keys = this.rest ? order.slice(0, MAX_ROWS - 1) : order;
      this.size = Math.max(1, this.keys.length + (this.rest ? 1 : 0));
      // Row 0 is at the bottom of the plot.
      this.place = new Int32Array(cube.names[name].length).fill(0);
      this.keys.forEach((key, i) => { this.place[key] = this.size - 1 - i; });
    }

    cellOf(i) { return this.place[this.column[i]]; }

    fullLabel(y) {
      const i = this.size - 1 - y;
      if (i >= this.keys.length) return this.rest ? REST + " (" + this.rest + ")" : "";
      return (this.name === "cpu" ? "CPU " : "") + this.cube.names[this.name][this.keys[i]];
    }

    label(y) { return Text.safe(this.fullLabel(y)); }
    range(y0, y1) { return y0 === y1 ? Text.short(this.fullLabel(y0), 60) : (y1 - y0 + 1) + " of " + this.size + " " + this.title + "s"; }

    // Names of the rows from y0 to y1; the row of all others has none.
    exactly(y0, y1) {
      return this.keys.filter((key) => this.place[key] >= y0 && this.place[key] <= y1)
        .map((key) => this.cube.names[this.name][key]);
    }

    ticks() {
      const at = [];
      const text = [];
      const step = Math.ceil(this.size / 30);
      for (let y = this.size - 1; y >= 0; y -= step) {
        at.push(y);
        // Plotly reads tags and entities in labels: a name is neither.
        text.push(Text.short(this.fullLabel(y), LABEL).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"));
      }
      return { at, text };
    }

    coversCulprits(cells) {
      return this.name === "cgroup" || this.name === "kind" || (cells.y0 <= 0 && cells.y1 >= this.size - 1);
    }

    takesCulprit(cgroup, kind, cells) {
      if (this.name !== "cgroup" && this.name !== "kind") return true;
      const y = this.place[this.name === "cgroup" ? cgroup : kind];
      return y >= cells.y0 && y <= cells.y1;
    }
  }

  function all(cube) {
    return {
      latency: new LatencyAxis(cube),
      ...(cube.exact ? { cpu: new NamedAxis(cube, "cpu", "CPU") } : {}),
      cgroup: new NamedAxis(cube, "cgroup", "cgroup"),
      policy: new NamedAxis(cube, "policy", "policy"),
      kind: new NamedAxis(cube, "kind", "kind"),
    };
  }

  return { all };
})();
