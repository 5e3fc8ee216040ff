"use strict";
// Keeps drags over the plot and drawing apart: what a drag of Plotly's began on must stay until it
// ends, so nothing is drawn meanwhile, and the next one begins when the last one's selection is told.
class Held {
  constructor(node) {
    Object.assign(this, { node, waiting: [], drags: 0, down: null, untold: false, early: null });
    for (const type of ["mousedown", "touchstart"]) node.addEventListener(type, (event) => this.begin(event), true);
    for (const type of ["mouseup", "touchend", "touchcancel", "blur"]) window.addEventListener(type, (event) => this.end(event), true);
    // The end of one that left the window may be seen by nobody.
    window.addEventListener("mousemove", (event) => { if (this.down && !event.buttons) this.end(event); }, true);
  }

  // Of a figure that is drawn.
  listen() {
    this.node.on("plotly_selected", (event) => { if (this.untold && event && event.range) setTimeout(() => this.told()); });
  }

  begin(event) {
    if (this.untold && event.type === "mousedown") {
      event.stopPropagation();
      event.preventDefault();
      this.early = event;
      return;
    }
    this.untold = false;
    this.drags++;
    this.down = event;
  }

  // One that selects is over when that is told, another one after whatever else listens to its end;
  // unless the next one has begun by then.
  end(event) {
    this.early = null;
    const { drags, down } = this;
    if (!down || this.untold) return;
    const [from, to] = [down, event].map((e) => (e.changedTouches ? e.changedTouches[0] : e));
    const far = Math.hypot(to.clientX - from.clientX, to.clientY - from.clientY) >= Held.FAR;
    this.untold = ["mouseup", "touchend"].includes(event.type) && far && this.node.layout.dragmode === "select";
    setTimeout(() => { if (drags === this.drags) this.told(); }, this.untold ? Held.TOLD_MS : 0);
  }

  // What waited is drawn before the next one begins.
  told() {
    this.release();
    if (this.untold) setTimeout(() => this.next());
  }

  next() {
    this.untold = false;
    const { early } = this;
    this.early = null;
    const at = early && document.elementFromPoint(early.clientX, early.clientY);
    if (at) at.dispatchEvent(new MouseEvent(early.type, early));
  }

  release() {
    this.down = null;
    for (const done of this.waiting.splice(0)) done();
  }

  // Resolves when nothing is held.
  async free() {
    while (this.down) await new Promise((done) => { this.waiting.push(done); });
  }
}
// Pixels; less is a click to Plotly, or as good as one.
Held.FAR = 12;
// Longer than Plotly takes to tell.
Held.TOLD_MS = 400;
