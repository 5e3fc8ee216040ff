"use strict";
// Two selections side by side: as shares of each, or as time per second, as the flame graph is.
const Versus = (() => {
  // totals: time lost in both.
  function measure(view, totals) {
    if (view.compare === "rate") {
      const scale = [view.cells, view.other].map((c) => 1 / view.seconds(c));
      return { scale, format: Text.duration, change: Text.duration, words: "time lost per second" };
    }
    const percent = (v) => v.toFixed(1) + " %";
    return { scale: totals.map((t) => 100 / (t || 1)), format: percent, change: (v) => v.toFixed(1) + " points", words: "share of the time lost" };
  }

  // lines: { heads: elements of the first columns, a, b: times }. The largest change is first.
  function table(title, heads, lines, { scale, format, change }) {
    const rows = lines.map((l) => ({ ...l, a: l.a * scale[0], b: l.b * scale[1] }))
      .sort((x, y) => Math.abs(y.b - y.a) - Math.abs(x.b - x.a) || y.a - x.a);
    const most = rows.reduce((most, r) => Math.max(most, Math.abs(r.b - r.a)), 1e-9);
    return Table.make(title, [...heads.map((h) => Text.name(h)), "A", "B", "B − A"], rows.map((r) => [
      ...r.heads, format(r.a), format(r.b), Table.bar(Text.signed(r.b - r.a, change), Math.abs(r.b - r.a), most),
    ]));
  }

  // Sums of both selections by key.
  function joined(a, b) {
    const sums = new Map();
    for (const [side, list] of [["a", a], ["b", b]]) {
      for (const { key, name, ns } of list) {
        if (!sums.has(key)) sums.set(key, { name, a: 0, b: 0 });
        sums.get(key)[side] += ns;
      }
    }
    return [...sums.values()];
  }

  return { measure, table, joined };
})();
