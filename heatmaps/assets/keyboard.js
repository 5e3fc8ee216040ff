"use strict";
// The heatmap without a mouse: a cell cursor, and a selection that grows from where Shift was held.
const Keyboard = (() => {
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const LEAP = 10;
  const CHOOSING = { a: "Now choosing selection A.", b: "Now choosing selection B, to compare with A." };

  function attach(node, heatmap, view, status) {
    let anchor = null;
    // It is about the last key: whatever else changes the view makes it old.
    // Where there is no cursor any more, nor is there a place to select from.
    view.onChange(() => {
      status.textContent = "";
      if (!view.cursor) anchor = null;
    });

    node.addEventListener("keydown", (event) => {
      if (event.altKey || event.metaKey) return;
      if (event.key === "Escape") {
        anchor = null;
        const said = view.target === "a" ? "The selection is cleared." : view.other ? "The second selection is cleared." : CHOOSING.a;
        view.set({ ...view.choice(null), cursor: null });
        status.textContent = said;
        event.preventDefault();
        return;
      }
      if (!event.ctrlKey && (event.key === "a" || event.key === "b")) {
        anchor = null;
        if (event.key === "b" && !view.cells) status.textContent = "Select something first, then compare it.";
        else {
          view.set({ target: event.key, cursor: view.cursor });
          status.textContent = CHOOSING[event.key];
        }
        return;
      }
      const at = view.cursor || start();
      if (event.key === "Enter" || event.key === " ") {
        anchor = at;
        select(at, at);
      } else if (STEPS[event.key]) {
        const step = event.ctrlKey ? LEAP : 1;
        const to = view.cursor ? {
          x: clip(at.x + STEPS[event.key][0] * step, view.cube.bins),
          y: clip(at.y + STEPS[event.key][1] * step, view.axisNow.size),
        } : at;
        if (event.shiftKey) {
          anchor = anchor || at;
          select(anchor, to);
        } else {
          anchor = null;
          view.set({ cursor: to });
        }
      } else return;
      event.preventDefault();
      status.textContent = heatmap.describe(view.cursor.x, view.cursor.y).join(", ") + ".";
    });

    function select(a, b) {
      view.set({
        cursor: b,
        ...view.choice({ x0: Math.min(a.x, b.x), x1: Math.max(a.x, b.x), y0: Math.min(a.y, b.y), y1: Math.max(a.y, b.y) }),
      });
    }

    // The selection's corner, else the fullest cell.
    function start() {
      const cells = view.active;
      return cells ? { x: cells.x1, y: cells.y1 } : heatmap.fullest();
    }
  }

  const clip = (value, size) => Math.min(size - 1, Math.max(0, value));
  return { attach };
})();
