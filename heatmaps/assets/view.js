"use strict";
// What is shown: rows, colours, kinds, selection. It lives in the address's hash, so that a link to
// the file opens what its sender saw.
class View {
  constructor(cube, axes) {
    this.cube = cube;
    this.axes = axes;
    this.listeners = [];
    // Sleeping is not latency: blocked is off until asked for.
    const awake = cube.kinds.filter((k) => k !== "blocked");
    this.defaults = {
      axis: "latency", measure: "time", scale: "log", stack: "victim", weight: "time",
      kinds: awake.length ? awake : cube.kinds,
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

  read() {
    const hash = new URLSearchParams(location.hash.slice(1));
    const pick = (name, known) => known.includes(hash.get(name)) ? hash.get(name) : this.defaults[name];
    this.axis = pick("axis", Object.keys(this.axes));
    this.measure = pick("measure", ["time", "count"]);
    this.scale = pick("scale", ["log", "linear"]);
    this.stack = pick("stack", ["victim", "waker"]);
    this.weight = pick("weight", ["time", "count"]);
    this.kinds = hash.has("kinds")
      ? this.cube.kinds.filter((k) => hash.get("kinds").split(",").includes(k)) : this.defaults.kinds;
    this.cells = this.cellsFrom(hash.get("cells"));
    this.cursor = null;
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
    for (const name of ["axis", "measure", "scale", "stack", "weight"]) {
      if (this[name] !== this.defaults[name]) hash.set(name, this[name]);
    }
    if (this.kinds.join() !== this.defaults.kinds.join()) hash.set("kinds", this.kinds.join());
    if (this.cells) {
      const { x0, x1, y0, y1 } = this.cells;
      hash.set("cells", `${x0}-${x1},${y0}-${y1}`);
    }
    return hash.toString().replace(/%2C/g, ",");
  }

  set(changes) {
    if ("axis" in changes && changes.axis !== this.axis) {
      this.axis = changes.axis;
      this.cursor = null;
      // Rows mean something else now; the selected time stays.
      if (this.cells) this.cells = { ...this.cells, y0: 0, y1: this.axisNow.size - 1 };
    }
    Object.assign(this, changes);
    history.replaceState(null, "", "#" + this.hash());
    this.tell();
  }

  onChange(listener) { this.listeners.push(listener); }
  tell() { for (const listener of this.listeners) listener(this); }

  // Rows of the cube that are on show and, if cells are selected, in them.
  rows() { return this.cube.selected(this.kindsOn, this.axisNow, this.cells); }
}
