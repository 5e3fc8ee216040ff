"use strict";
// What is shown: rows, colours, kinds, selections. It lives in the address's hash, so that a link to
// the file opens what its sender saw.
class View {
  // victims: of all of the recording, whatever part of it the cube is of.
  constructor(cube, axes, victims) {
    this.cube = cube;
    this.axes = axes;
    this.listeners = [];
    // Sleeping is not latency, nor is an iteration of a loop: off until asked for.
    const lost = cube.lostKinds;
    // Where all victims are of one cgroup, its name blames nobody.
    const oneCgroup = new Set(victims.map(([, cgroup]) => cgroup)).size === 1;
    this.defaults = {
      axis: "latency", measure: "time", scale: "log", stack: "victim", weight: "time", order: "root", split: "none",
      compare: "share", blame: oneCgroup ? "comm" : "cgroup", profile: "with", kinds: lost.length ? lost : cube.kinds,
    };
    this.read();
    window.addEventListener("hashchange", () => {
      if (location.hash.slice(1) !== this.hash()) {
        this.read();
        this.tell();
      }
    });
  }

  get axisNow() { return this.axes[this.axis]; }
  get kindsOn() { return new Set(this.kinds); }

  // Whether stacks are of waits, which can be counted; others have one value only.
  get weighed() { return this.stack === "victim" || this.stack === "waker"; }
  get counted() { return this.weighed && this.weight === "count"; }

  // Running stands beside the time of who waited.
  get ranShown() { return this.profile === "with" && this.cube.hasRan && !this.counted && this.stack === "victim"; }

  // The cells of the selection that the next gesture changes.
  get active() { return this.target === "b" ? this.other : this.cells; }

  // Changes to `set` that give the active selection these cells.
  choice(cells) {
    // Without a second one, the next gesture is about the first.
    if (this.target === "b") return cells ? { other: cells } : { other: null, target: "a" };
    // Without a first selection there is no second one.
    return cells ? { cells } : { cells: null, other: null };
  }

  read() {
    const hash = new URLSearchParams(location.hash.slice(1));
    for (const [name, known] of Object.entries(this.choices())) {
      this[name] = known.includes(hash.get(name)) ? hash.get(name) : this.defaults[name];
    }
    this.kinds = hash.has("kinds")
      ? this.cube.kinds.filter((k) => hash.get("kinds").split(",").includes(k)) : this.defaults.kinds;
    // Cells are of a part: of another one, or one that is still to be read, they mean nothing here.
    const here = hash.get("part") === (this.cube.part || null);
    this.cells = here ? this.cellsFrom(hash.get("cells")) : null;
    this.other = this.cells && this.cellsFrom(hash.get("with"));
    const trace = hash.get("trace") || "";
    this.trace = this.cube.traces.some((t) => t.id === trace) ? trace : "";
    this.target = "a";
    this.cursor = null;
  }

  choices() {
    return {
      axis: Object.keys(this.axes), measure: ["time", "count", ...(this.cube.exact ? ["max"] : [])], scale: ["log", "linear", "rank"],
      stack: ["victim", "waker", ...(this.cube.hasCulprits ? ["culprit"] : []), ...this.cube.profiles.flatMap((p, i) => (p.on_cpu ? [] : [`profile-${i}`]))], weight: ["time", "count"], order: ["root", "leaf"], split: ["none", ...(this.cube.exact ? ["comm"] : []), "kind"],
      compare: ["share", "rate"], blame: ["cgroup", "process", "comm"], profile: ["with", "without"],
    };
  }

  // Selected cells, limits included, as x0-x1,y0-y1; null for none or for what does not fit.
  cellsFrom(text) {
    const match = /^(\d{1,6})-(\d{1,6}),(\d{1,6})-(\d{1,6})$/.exec(text || "");
    if (!match) return null;
    const [x0, x1, y0, y1] = match.slice(1).map(Number);
    const fits = x0 <= x1 && y0 <= y1 && x1 < this.cube.bins && y1 < this.axisNow.size;
    return fits ? { x0, x1, y0, y1 } : null;
  }

  hash() {
    const hash = new URLSearchParams();
    for (const name of Object.keys(this.choices())) {
      if (this[name] !== this.defaults[name]) hash.set(name, this[name]);
    }
    if (this.kinds.join() !== this.defaults.kinds.join()) hash.set("kinds", this.kinds.join());
    for (const [name, cells] of [["cells", this.cells], ["with", this.other]]) {
      if (cells) hash.set(name, `${cells.x0}-${cells.x1},${cells.y0}-${cells.y1}`);
    }
    if (this.trace) hash.set("trace", this.trace);
    if (this.cube.part) hash.set("part", this.cube.part);
    return hash.toString().replace(/%2C/g, ",");
  }

  set(changes) {
    if ("axis" in changes && changes.axis !== this.axis) {
      this.axis = changes.axis;
      this.cursor = null;
      this.target = "a";
      // Rows mean something else now; the selected time stays.
      for (const name of ["cells", "other"]) {
        if (this[name]) this[name] = { ...this[name], y0: 0, y1: this.axisNow.size - 1 };
      }
    }
    Object.assign(this, changes);
    if (!this.cells) this.target = "a";
    this.write();
    this.tell();
  }

  // Browsers refuse (Safari after 100 in 30 s) an address that changes too often: it follows later.
  write() {
    clearTimeout(this.late);
    const hash = this.hash();
    if (hash === location.hash.slice(1)) return;
    try {
      history.replaceState(null, "", "#" + hash);
    } catch {
      this.late = setTimeout(() => this.write(), View.LATER_MS);
    }
  }

  onChange(listener) { this.listeners.push(listener); }
  tell() { for (const listener of this.listeners) listener(this); }

  // Rows of the cube that are on show and, if cells are given, in them.
  rows(cells) { return this.cube.selected(this.kindsOn, this.axisNow, cells); }

  // Where a selection begins and ends, in ns from time bin 0 on.
  times({ x0, x1 }) { return [x0 * this.cube.bin_ns, (x1 + 1) * this.cube.bin_ns]; }

  // How much of a selection's time was recorded; what is per second is of that. The last time bin
  // may be longer than the recording.
  seconds(cells) {
    const [from, to] = this.times(cells);
    return Math.max(1, Math.min(to, this.cube.recorded_ns) - from - this.unrecorded(cells)) / 1e9;
  }

  // How much of a selection's time its rows were not recorded in (ns).
  unrecorded(cells) {
    return this.cube.unrecorded(...this.times(cells), this.axisNow.gaps(cells.y0, cells.y1));
  }

  // Loss intervals of a selection: of its time and, where rows are CPUs, of its CPUs.
  losses(cells) {
    const { y0, y1 } = cells;
    const { rowOf, size } = this.axisNow;
    const then = this.cube.lossesIn(...this.times(cells));
    if (!rowOf || (y0 <= 0 && y1 >= size - 1)) return then;
    return then.filter((l) => rowOf(l.cpu) >= y0 && rowOf(l.cpu) <= y1);
  }

  // What a selection is, in words.
  words(cells) {
    const [from, to] = this.times(cells).map((ns) => this.cube.when(ns));
    return `${this.axisNow.range(cells.y0, cells.y1)}, ${from} to ${to}`;
  }
}
View.LATER_MS = 1000;
