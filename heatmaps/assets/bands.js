"use strict";
// Losses as hatched bands over the heatmap, so that an empty place is not taken for a calm one.
const Bands = (() => {
  const MAX_BANDS = 100;
  const LINES = 24;
  // No band is drawn narrower than this part of the plot's width.
  const MIN_SHARE = 300;

  // Loss intervals in time bins, joined where they touch.
  function joined(cube) {
    const spans = cube.losses
      .map((l) => ({
        x0: Math.min(cube.bins - 1, Math.floor(l.from / cube.bin_ns)),
        x1: Math.min(cube.bins - 1, Math.max(0, Math.ceil(l.to / cube.bin_ns) - 1)),
        value: l.value,
      }))
      .sort((a, b) => a.x0 - b.x0);
    const out = [];
    for (const span of spans) {
      const last = out[out.length - 1];
      if (last && span.x0 <= last.x1 + 1) {
        last.x1 = Math.max(last.x1, span.x1);
        last.value += span.value;
      } else out.push({ ...span });
    }
    return out.slice(0, MAX_BANDS);
  }

  // A strip above the plot, which no cell can hide, and hatching over the cells below it.
  function shapes(cube, { loss, text, plot }) {
    const bin = cube.bin_ns / 1e9;
    const edge = cube.bins * bin / MIN_SHARE;
    return joined(cube).flatMap(({ x0, x1 }) => {
      const from = cube.offset_ns / 1e9 + x0 * bin;
      const to = Math.max(from + (x1 + 1 - x0) * bin, from + edge);
      let path = "";
      for (let i = 0; i < LINES; i++) path += `M${from},${i / LINES}L${to},${(i + 1) / LINES}`;
      const box = { type: "rect", xref: "x", yref: "paper", x0: from, x1: to };
      return [
        { ...box, y0: 0, y1: 1, line: { width: 0 }, fillcolor: plot, opacity: 0.6 },
        { type: "path", xref: "x", yref: "paper", path, line: { color: text, width: 1 }, opacity: 0.7 },
        { ...box, y0: 1.008, y1: 1.03, line: { color: loss, width: 1 }, fillcolor: loss },
      ];
    });
  }

  return { shapes };
})();
