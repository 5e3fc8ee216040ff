"use strict";
// What the heatmap's rows are. An axis gives each row of the cube its place (`place[column[i]]`),
// labels the places, and does the same for rows of the blame table where that knows them.
const Axes = (() => {
  const MAX_ROWS = 60;
  const MAX_CPUS = 1024;
  const LABEL = 15;
  // So many rows are named in words, more are counted.
  const NAMED = 3;
  // Fewer ticks of latencies than this are too few; of its rows' own limits not many more fit.
  const FEWEST_TICKS = 2;
  const MOST_TICKS = 8;
  // Plotly reads tags and entities in labels: a name is neither.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

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
      this.title = "latency";
      this.unit = "latencies";
      this.column = cube.row.b;
      // One empty row above and below, so that nothing hides at an edge.
      this.first = Math.max(0, Math.min(low, high) - 1);
      this.size = high < 0 ? 1 : Math.min(cube.low_ns.length - 1, high + 1) - this.first + 1;
      this.place = Int32Array.from(cube.low_ns, (_, b) => b - this.first);
      this.grid = this.finer();
      this.blame = cube.blame_coarse.includes("b") ? null : { column: cube.blame.b, place: this.place, whole: () => true };
    }

    // Cells that are drawn: so many rows of a finer grid are one of these.
    finer() {
      const found = this.cube.grid("b");
      const rows = this.cube.merged.b;
      const low = this.cube.fine_low_ns;
      const place = Int32Array.from(low, (_, b) => b - this.first * rows);
      const label = (y) => Text.between(low[y + this.first * rows], low[y + 1 + this.first * rows] || null);
      return found && { ...found, rows, columns: this.cube.merged.t, place, label };
    }

    label(y) { return this.range(y, y); }
    range(y0, y1) { return Text.between(...this.exactly(y0, y1)); }

    // Limits in ns: from the first, below the second; null for no end.
    exactly(y0, y1) {
      const top = this.cube.low_ns[y1 + this.first + 1];
      return [this.cube.low_ns[y0 + this.first], top === undefined ? null : top];
    }

    // Ticks at 1, 10, 100 ns ...; where few of those are among the rows from y0 to y1, at more.
    ticks(y0, y1) {
      if (!this.cube.length) return { at: [], text: [] };
      for (const digits of [[1], [1, 2, 5]]) {
        const found = this.round(digits).filter(({ y }) => y >= y0 - 0.5 && y <= y1 + 0.5);
        if (found.length >= FEWEST_TICKS) return { at: found.map(({ y }) => y), text: found.map(({ ns }) => Text.limit(ns)) };
      }
      const step = Math.ceil((y1 - y0) / MOST_TICKS);
      const rows = Array.from({ length: Math.floor((y1 - y0) / step) + 1 }, (_, i) => y0 + i * step);
      return { at: rows.map((y) => y - 0.5), text: rows.map((y) => Text.limit(this.exactly(y, y)[0])) };
    }

    // Latencies with these first digits, each with its place: between two limits of buckets in proportion.
    round(digits) {
      const low = this.cube.low_ns;
      const found = [];
      for (let ten = 10; ten <= low[low.length - 1]; ten *= 10) {
        for (const ns of digits.map((digit) => digit * ten)) {
          const b = low.findIndex((l) => l > ns) - 1;
          if (b >= 0) found.push({ ns, y: b + (ns - low[b]) / (low[b + 1] - low[b]) - this.first - 0.5 });
        }
      }
      return found;
    }

    // The rows worth a look at first: those with waits of these kinds, and one more on each side.
    extent(kindsOn) {
      const on = this.cube.kinds.map((k) => kindsOn.has(k));
      let low = this.size;
      let high = -1;
      for (let i = 0; i < this.cube.length; i++) {
        if (!on[this.cube.row.kind[i]]) continue;
        const y = this.place[this.column[i]];
        if (y < low) low = y;
        if (y > high) high = y;
      }
      return high < 0 ? [0, this.size - 1] : [Math.max(0, low - 1), Math.min(this.size - 1, high + 1)];
    }

    breaks() { return []; }
    gaps() { return this.cube.gaps; }
    veils() { return [{ y0: 0, y1: this.size - 1, gaps: this.cube.gaps }]; }
  }

  // CPUs, cgroups, threads, policies, kinds or traces, the one with most time lost on top; CPUs in
  // the order of their NUMA nodes.
  class NamedAxis {
    constructor(cube, name, title, unit) {
      Object.assign(this, { cube, name, title, unit, column: cube.row[name] });
      const most = name === "cpu" ? MAX_CPUS : MAX_ROWS;
      const order = this.order();
      this.rest = order.length > most ? order.length - (most - 1) : 0;
      this.keys = this.rest ? order.slice(0, most - 1) : order;
      // Some of the rest may be together already, nobody knows how many.
      this.counted = this.rest && cube.names[name][order[order.length - 1]] !== Text.REST ? this.rest : 0;
      this.size = Math.max(1, this.keys.length + (this.rest ? 1 : 0));
      // Row 0 is at the bottom of the plot.
      this.place = new Int32Array(cube.names[name].length).fill(0);
      this.keys.forEach((key, i) => { this.place[key] = this.size - 1 - i; });
      this.rowOf = name === "cpu" ? this.rowsOfCpus() : null;
      this.blame = this.blamed();
      this.grid = this.finer();
    }

    // As of latencies; only CPUs have several rows in one.
    finer() {
      const { cube, name, size } = this;
      const found = cube.grid(name);
      if (!found) return null;
      if (name !== "cpu") return { ...found, rows: 1, columns: cube.merged.t, place: this.place };
      const most = found.y.reduce((a, b) => Math.max(a, b), 0);
      const rows = Math.min(cube.cpu_group, most + 1);
      const place = new Int32Array(most + 1);
      const names = new Map();
      this.keys.forEach((key) => {
        for (let i = 0; i < rows; i++) {
          const cpu = cube.cpus[key] + i;
          place[cpu] = (this.place[key] + 1) * rows - 1 - i;
          names.set(place[cpu], this.cpuLabel(key, String(cpu)));
        }
      });
      if (this.rest || size * rows > MAX_CPUS) return null;
      return { ...found, rows, columns: cube.merged.t, place, rowOf: (cpu) => place[cpu], label: (y) => names.get(y) || "" };
    }

    // The row of a CPU by its number; undefined for one that has no waits, and so no row.
    rowsOfCpus() {
      const { cpus, cpu_group: group } = this.cube;
      const rows = new Map(cpus.map((first, key) => [first, this.place[key]]));
      return (cpu) => rows.get(cpu - cpu % group);
    }

    order() {
      const { cube, name } = this;
      if (name === "cpu") {
        return cube.cpus.map((_, key) => key).sort((a, b) => cube.nodes[a] - cube.nodes[b] || cube.cpus[a] - cube.cpus[b]);
      }
      const awake = new Set(cube.lostKinds);
      const everywhere = { column: cube.row.kind, place: new Int32Array(cube.kinds.length) };
      const order = cube.by(name, cube.selected(awake, everywhere, null)).map((s) => s.key);
      const known = new Set(order);
      cube.names[name].forEach((_, key) => { if (!known.has(key)) order.push(key); });
      // What the cube knows no names of is below all names, and one with those that have no row.
      const others = order.indexOf(cube.names[name].indexOf(Text.REST));
      return others < 0 ? order : [...order.slice(0, others), ...order.slice(others + 1), order[others]];
    }

    // How rows of the blame table find their place; whole: all of the rows from y0 to y1 do.
    blamed() {
      const { cube, name, place } = this;
      const whole = () => true;
      if (name === "kind") return { column: cube.blame.kind, place, whole };
      if (name === "cpu") return cube.blame_coarse.includes("cpu") ? null : { column: cube.blame.cpu, place, whole };
      if (name !== "cgroup" && name !== "comm") return null;
      const known = new Map(cube.names[name].map((n, key) => [n, key]));
      const others = this.rest || known.has(Text.REST) ? 0 : -1;
      const own = this.keys.filter((key) => cube.names[name][key] !== Text.REST);
      const cut = own.filter((key) => cube.blame_lost[name].includes(key)).map((key) => place[key]);
      if (own.length && cut.length === own.length) return null;
      const field = name === "cgroup" ? 1 : 2;
      // What is together there is of the lowest row, unless some of it is of others.
      const places = cube.victims.map((v) => (known.has(v[field]) ? place[known.get(v[field])] : cut.length && v[field] === null ? -1 : others));
      return {
        column: cube.blame.victim, place: Int32Array.from(places),
        whole: (y0, y1) => !cut.some((y) => y >= y0 && y <= y1) && !(cut.length && y0 === others),
      };
    }

    fullLabel(y) {
      const i = this.size - 1 - y;
      if (i >= this.keys.length) return this.rest ? Text.rest(this.counted) : `no ${this.unit}`;
      const name = this.cube.names[this.name][this.keys[i]];
      if (this.name === "cpu") return this.cpuLabel(this.keys[i], name);
      return (this.name === "kind" ? Text.kind(name) : name) || Text.nameless(this.name);
    }

    cpuLabel(key, name) {
      const node = this.cube.nodes[key];
      const several = this.cube.nodes.some((n) => n !== this.cube.nodes[0]);
      if (!several || node < 0) return "CPU " + name;
      // A range has no room for the word.
      return `node ${node}` + (name.includes("–") ? ": " : ", CPU ") + name;
    }

    label(y) { return Text.safe(this.fullLabel(y)); }
    range(y0, y1) {
      if (y0 === 0 && y1 === this.size - 1 && y1) return `all ${this.unit}`;
      if (y1 - y0 >= NAMED) return `${y1 - y0 + 1} of ${this.size} ${this.unit}`;
      const labels = Array.from({ length: y1 - y0 + 1 }, (_, i) => this.fullLabel(y1 - i));
      const form = Text.shorts(labels, Math.floor(60 / labels.length));
      return labels.map((label) => Text.isolated(form(label))).join(", ");
    }

    // Names of the rows from y0 to y1; the row of all others has none.
    exactly(y0, y1) {
      return this.keys.filter((key) => this.place[key] >= y0 && this.place[key] <= y1)
        .map((key) => this.cube.names[this.name][key]);
    }

    ticks() {
      const at = [];
      const text = [];
      const step = Math.ceil(this.size / 30);
      const labels = Array.from({ length: this.size }, (_, y) => this.fullLabel(y));
      const form = Text.shorts(labels, LABEL);
      for (let y = this.size - 1; y >= 0; y -= step) {
        at.push(y);
        text.push(plain(form(labels[y])));
      }
      return { at, text };
    }

    extent() { return [0, this.size - 1]; }

    // The machine of a merged trace that a row is of; undefined where it may be any.
    machineOf(y) {
      const { cube, name } = this;
      const key = this.keys[this.size - 1 - y];
      if (name === "cgroup") return cube.machines.find(({ host }) => (cube.cgroups[key] || "").startsWith(host + ":"));
      if (name !== "cpu") return undefined;
      const of = (cpu) => cube.machines.filter((machine) => machine.cpu <= cpu).sort((a, b) => b.cpu - a.cpu)[0];
      const first = of(cube.cpus[key]);
      return first === of(cube.cpus[key] + cube.cpu_group - 1) ? first : undefined;
    }

    // Times in which nothing of some rows was recorded.
    gaps(y0, y1) {
      const rows = Array.from({ length: y1 - y0 + 1 }, (_, i) => this.machineOf(y0 + i));
      return this.cube.gapsOf([...new Set(rows)]);
    }

    // The same for all rows, those beside each other that are of one machine together.
    veils() {
      const found = [];
      for (let y = 0; y < this.size; y++) {
        const machine = this.machineOf(y);
        const last = found[found.length - 1];
        if (last && last.machine === machine) last.y1 = y;
        else found.push({ y0: y, y1: y, machine });
      }
      return found.map(({ y0, y1 }) => ({ y0, y1, gaps: this.gaps(y0, y0) }));
    }

    // Between which rows one NUMA node ends.
    breaks() {
      if (this.name !== "cpu") return [];
      const { nodes } = this.cube;
      return this.keys.map((key, i) => (i && nodes[key] !== nodes[this.keys[i - 1]] ? this.size - i - 0.5 : null)).filter((y) => y !== null);
    }
  }

  function all(cube) {
    return {
      latency: new LatencyAxis(cube),
      ...(cube.exact ? { cpu: new NamedAxis(cube, "cpu", "CPU", "CPUs") } : {}),
      cgroup: new NamedAxis(cube, "cgroup", "cgroup", "cgroups"),
      ...(cube.exact ? { comm: new NamedAxis(cube, "comm", "thread", "threads") } : {}),
      policy: new NamedAxis(cube, "policy", "scheduling policy", "policies"),
      kind: new NamedAxis(cube, "kind", "kind of wait", "kinds"),
      ...(cube.hasTraces ? { bucket: new NamedAxis(cube, "bucket", "trace bucket", "trace buckets") } : {}),
    };
  }

  return { all, plain };
})();
