"use strict";
// Losses as hatched bands over the heatmap, so that an empty place is not taken for a calm one; and,
// for the same reason, a veil over times between the recordings of a merged trace.
const Bands = (() => {
  const LINES = 24;
  // No band is drawn narrower than this part of the plot's width.
  const MIN_SHARE = 300;
  // Pixels above the plot, below Plotly's buttons.
  const STRIP = [2, 9];
  // A veil is named where it is at least this part of the width.
  const NAMED_SHARE = 0.16;

  // Loss intervals in time bins, joined where they touch.
  function joined(cube, losses) {
    const spans = losses
      .map((l) => ({
        x0: Math.min(cube.bins - 1, Math.floor(l.from / cube.bin_ns)),
        x1: Math.min(cube.bins - 1, Math.max(0, Math.ceil(l.to / cube.bin_ns) - 1)),
      }))
      .sort((a, b) => a.x0 - b.x0);
    const out = [];
    for (const span of spans) {
      const last = out[out.length - 1];
      if (last && span.x0 <= last.x1 + 1) last.x1 = Math.max(last.x1, span.x1);
      else out.push({ ...span });
    }
    return out;
  }

  // Losses of each row where rows are CPUs, else those of all of them; y0 and y1 as shapes have them.
  function boxes({ cube, axisNow: { rowOf } }) {
    if (!rowOf) return joined(cube, cube.losses).map((span) => ({ ...span, y0: 0, y1: 1 }));
    const rows = new Map();
    for (const loss of cube.losses) {
      const row = rowOf(loss.cpu);
      if (row === undefined) continue;
      if (!rows.has(row)) rows.set(row, []);
      rows.get(row).push(loss);
    }
    return [...rows].flatMap(([row, losses]) => joined(cube, losses).map((span) => ({ ...span, y0: row - 0.5, y1: row + 0.5 })));
  }

  // Paths of an axis: asked for with every key, and there may be losses in every second. Another
  // part of the recording has axes of its own.
  const made = new WeakMap();
  function paths(view) {
    if (!made.has(view.axisNow)) made.set(view.axisNow, drawn(view));
    return made.get(view.axisNow);
  }

  // A strip above the plot, which no cell can hide, and hatching over the cells below it.
  function drawn(view) {
    const { cube } = view;
    const bin = cube.bin_ns / 1e9;
    const start = cube.offset_ns / 1e9;
    const edge = cube.bins * bin / MIN_SHARE;
    const at = ({ x0, x1 }) => [start + x0 * bin, start + Math.max((x1 + 1) * bin, x0 * bin + edge)];
    const box = ([from, to], y0, y1) => `M${from},${y0}H${to}V${y1}H${from}Z`;
    const lines = view.axisNow.rowOf ? Math.max(1, Math.round(LINES / view.axisNow.size)) : LINES;
    const hatch = ([from, to], y0, y1) => Array.from({ length: lines }, (_, i) => {
      const y = (n) => y0 + (y1 - y0) * n / lines;
      return `M${from},${y(i)}L${to},${y(i + 1)}`;
    }).join("");
    const found = boxes(view);
    const each = (draw) => found.map((b) => draw(at(b), b.y0, b.y1)).join("");
    return { boxes: each(box), hatches: each(hatch), strips: joined(cube, cube.losses).map((span) => box(at(span), ...STRIP)).join("") };
  }

  function shapes(view, { loss, text, plot, soft }) {
    const { boxes: under, hatches, strips } = paths(view);
    const path = (of, yref, look) => ({ type: "path", xref: "x", yref, path: of, ...look });
    const over = view.axisNow.rowOf ? "y" : "paper";
    return [
      ...view.axisNow.veils().flatMap((rows) => veils(view, rows, { soft, text })),
      ...(under ? [
        path(under, over, { line: { width: 0 }, fillcolor: plot, opacity: 0.6 }),
        path(hatches, over, { line: { color: text, width: 1 }, opacity: 0.7 }),
      ] : []),
      ...(strips ? [path(strips, "paper", { ysizemode: "pixel", yanchor: 1, line: { width: 0 }, fillcolor: loss })] : []),
    ];
  }

  // Of all rows to the plot's edges.
  function veils({ cube, axisNow }, { y0, y1, gaps }, { soft, text }) {
    const start = cube.offset_ns / 1e9;
    const rows = y0 > 0 || y1 < axisNow.size - 1 ? { yref: "y", y0: y0 - 0.5, y1: y1 + 0.5 } : { yref: "paper", y0: 0, y1: 1 };
    return gaps.map((gap) => [Math.max(0, gap.from), Math.min(cube.duration_ns, gap.to)]).filter(([from, to]) => from < to)
      .map(([from, to]) => ({
        type: "rect", xref: "x", ...rows, x0: start + from / 1e9, x1: start + to / 1e9, line: { width: 0 }, fillcolor: soft, opacity: 0.25, layer: "below",
        ...(to - from < NAMED_SHARE * cube.duration_ns ? {} : { label: { text: "not recorded", font: { color: text, size: 12 } } }),
      }));
  }

  return { shapes };
})();
