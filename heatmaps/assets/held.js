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
    this.node.on("plotly_selected", (event) => { if (event && event.range) setTimeout(() => this.told()); });
  }

  begin(event) {
    if (this.untold && event.type === "mousedown") {
      event.stopPropagation();
      event.preventDefault();
      this.early = event;
      return;
    }
    this.drags++;
    this.down = event;
  }

  // After whatever else listens to the end of a drag, unless the next one has begun by then.
  end(event) {
    this.early = null;
    const { drags, down } = this;
    if (!down) return;
    const far = Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) >= Held.FAR;
    if (event.type === "mouseup" && far && this.node.layout.dragmode === "select") {
      this.untold = true;
      setTimeout(() => { if (drags === this.drags) this.told(); }, Held.TOLD_MS);
    }
    setTimeout(() => { if (drags === this.drags) this.release(); });
  }

  told() {
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
