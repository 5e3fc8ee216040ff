"use strict";
// Sums over the cube: each of its rows is the waits that share time bin, latency bucket, CPU,
// cgroup, policy, kind and stacks.
class Cube {
  constructor(data) {
    Object.assign(this, data);
    const column = (group, name) => data.columns[group + "." + name];
    this.row = {};
    for (const name of ["t", "b", "cpu", "cgroup", "policy", "kind", "stack", "waker_stack", "count", "sum_ns", "max_ns"]) {
      this.row[name] = column("rows", name);
    }
    this.culprit = {};
    for (const name of ["t", "cgroup", "kind", "culprit", "ns", "count"]) {
      this.culprit[name] = column("culprits", name);
    }
    this.length = this.row.t.length;
    // Histograms know buckets only: no longest wait, no CPU.
    this.exact = data.source === "waits";
    this.duration_ns = this.bins * this.bin_ns;
    this.names = { cpu: data.cpus.map(String), cgroup: data.cgroups, policy: data.policies, kind: data.kinds };
  }

  // Indices into `frames` of one stack, outermost first.
  stackOf(id) {
    const ends = this.columns["stacks.ends"];
    return this.columns["stacks.items"].subarray(id ? ends[id - 1] : 0, ends[id]);
  }

  get hasStacks() {
    return this.columns["stacks.items"].length > 0;
  }

  // Longest wait of bucket b, or null for the last one, which has no end.
  highOf(b) {
    return b + 1 < this.low_ns.length ? this.low_ns[b + 1] - 1 : null;
  }

  // Row numbers that `view` shows: kinds that are on, and the selected cells if there are any.
  // `cellOf` maps a row of the cube to the heatmap's row.
  selected(kindsOn, axis, cells) {
    const { t, kind } = this.row;
    const out = [];
    const on = this.kinds.map((k) => kindsOn.has(k));
    for (let i = 0; i < this.length; i++) {
      if (!on[kind[i]]) continue;
      if (cells) {
        if (t[i] < cells.x0 || t[i] > cells.x1) continue;
        const y = axis.cellOf(i);
        if (y < cells.y0 || y > cells.y1) continue;
      }
      out.push(i);
    }
    return out;
  }

  // Count, time and longest by one column, most time first.
  by(name, rows) {
    const sums = new Map();
    const keys = this.row[name];
    const { count, sum_ns, max_ns } = this.row;
    for (const i of rows) {
      let sum = sums.get(keys[i]);
      if (!sum) sums.set(keys[i], sum = { key: keys[i], name: this.names[name][keys[i]], count: 0, ns: 0, max: 0 });
      sum.count += count[i];
      sum.ns += sum_ns[i];
      if (max_ns[i] > sum.max) sum.max = max_ns[i];
    }
    return [...sums.values()].sort((a, b) => b.ns - a.ns || b.count - a.count);
  }

  // Waits per bucket, and their totals.
  distribution(rows) {
    const counts = new Float64Array(this.low_ns.length);
    const total = { count: 0, ns: 0, max: 0, counts };
    for (const i of rows) {
      counts[this.row.b[i]] += this.row.count[i];
      total.count += this.row.count[i];
      total.ns += this.row.sum_ns[i];
      if (this.row.max_ns[i] > total.max) total.max = this.row.max_ns[i];
    }
    return total;
  }

  // Limits [low, high] of the nearest-rank quantile, never above the longest wait; high is null for
  // no limit.
  quantile(total, q) {
    const rank = Math.max(1, Math.ceil(q * total.count - 1e-9));
    let seen = 0;
    for (let b = 0; b < total.counts.length; b++) {
      seen += total.counts[b];
      if (seen >= rank) {
        const high = this.highOf(b);
        if (!this.exact) return [this.low_ns[b], high];
        return [this.low_ns[b], high === null ? total.max : Math.min(high, total.max)];
      }
    }
    return [0, 0];
  }

  // Exact count and time of the whole recording, by kind.
  totalsOf(kindsOn) {
    return Object.entries(this.totals).filter(([kind]) => kindsOn.has(kind))
      .map(([kind, t]) => ({ name: kind, count: t.count, ns: t.sum_ns, max: t.max_ns }))
      .sort((a, b) => b.ns - a.ns);
  }

  // Who ran meanwhile, most time first. Culprits are kept by time, cgroup and kind only.
  culpritsOf(kindsOn, axis, cells) {
    const { t, cgroup, kind, culprit, ns, count } = this.culprit;
    const exact = !cells || axis.coversCulprits(cells);
    const sums = new Map();
    for (let i = 0; i < t.length; i++) {
      if (!kindsOn.has(this.kinds[kind[i]])) continue;
      const bin = Math.min(t[i], this.bins - 1);
      if (cells && (bin < cells.x0 || bin > cells.x1)) continue;
      if (cells && !axis.takesCulprit(cgroup[i], kind[i], cells)) continue;
      let sum = sums.get(culprit[i]);
      if (!sum) sums.set(culprit[i], sum = { name: this.culprits[culprit[i]], count: 0, ns: 0 });
      sum.count += count[i];
      sum.ns += ns[i];
    }
    return { exact, list: [...sums.values()].sort((a, b) => b.ns - a.ns || b.count - a.count) };
  }

  // Loss intervals that touch the time bins x0 to x1.
  lossesIn(x0, x1) {
    const from = x0 * this.bin_ns;
    const to = (x1 + 1) * this.bin_ns;
    return this.losses.filter((l) => l.from < to && l.to > from);
  }
}
