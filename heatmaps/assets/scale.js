"use strict";
// How a cell's value becomes a colour: in proportion, by its logarithm, or by its rank among all
// cells, which shows structure where a few cells outweigh all others.
const Scale = (() => {
  const TICKS = 4;

  // values: what cells hold, NaN for nothing. Returns shade (value to what Plotly colours), the
  // limits, and ticks as pairs of shade and value.
  function of(kind, values) {
    const held = Float64Array.from(values.filter((v) => v > 0)).sort();
    const least = held.length ? held[0] : 1;
    const most = held.length ? held[held.length - 1] : 1;
    if (kind === "rank") return ranked(held);
    if (kind === "linear") {
      // Waits and nanoseconds are whole: a tick stands where its label says.
      const whole = new Set(steps(TICKS).map((p) => Math.round(most * p)));
      return { shade: (v) => v, low: 0, high: most, ticks: Array.from(whole, (v) => [v, v]) };
    }
    const high = Math.log10(most);
    // Where all are equal, each is the most there is: it must not be as pale as nothing.
    if (least === most) return { shade: () => high, low: high - 1, high, ticks: [[high, most]] };
    const low = Math.log10(least);
    const ticks = [];
    for (let e = Math.ceil(low); e <= high; e++) ticks.push([e, 10 ** e]);
    if (ticks.length < 2) ticks.splice(0, ticks.length, [low, least], [high, most]);
    return { shade: (v) => Math.log10(Math.max(v, least)), low, high, ticks };
  }

  const steps = (n) => Array.from({ length: n + 1 }, (_, i) => i / n);

  // Equal values have equal rank: that of the last of them.
  function ranked(held) {
    const distinct = [];
    const rank = [];
    held.forEach((v, i) => {
      if (v !== distinct[distinct.length - 1]) {
        distinct.push(v);
        rank.push(0);
      }
      rank[rank.length - 1] = (i + 1) / held.length;
    });
    const shade = (v) => rank[Math.min(rank.length, Cube.firstFrom(distinct, v + 0.5)) - 1] || 0;
    const at = (p) => held[Math.min(held.length - 1, Math.floor(p * held.length))] || 0;
    return { shade, low: 0, high: 1, ticks: steps(TICKS).map((p) => [p, at(p)]) };
  }

  return { of };
})();
