"use strict";
// Sums over the cube: each of its rows is the waits that share time bin, latency bucket, CPU,
// cgroup, thread, policy, kind, trace bucket and stacks. Rows are in order of time. Everything here
// is one pass over typed arrays: 400,000 rows in a few milliseconds.
class Cube {
  constructor(data) {
    this.load(data);
  }

  // Becomes the cube of this data: of the whole recording at first, later of a part of its time.
  load(data) {
    const kinds = this.kinds;
    Object.assign(this, data);
    this.row = Decode.group(data.columns, "rows");
    this.length = this.row.t.length;
    const sum = this.row.sum_ns = new Float64Array(this.length);
    for (let i = 0; i < this.length; i++) sum[i] = this.row.max_ns[i] + this.row.rest_ns[i];
    this.blame = Decode.group(data.columns, "blame");
    // Parties as the culprits are; null where several are together.
    const { cgroup, comm, process } = Decode.group(data.columns, "victims");
    const name = (number) => (number ? data.victim_names[number - 1] : null);
    this.victims = Array.from(cgroup, (_, i) => ["task", name(cgroup[i]), name(comm[i]), name(process[i])]);
    this.ran = Decode.group(data.columns, "profiles");
    this.owner = Decode.group(data.columns, "owners");
    if (kinds) this.keepKinds(kinds);
    this.origin_ns = this.origin_ns || data.start_ns;
    // From the start of the recording to that of time bin 0.
    this.offset_ns = Number(BigInt(data.start_ns) - BigInt(this.origin_ns));
    this.hasRan = this.profiles.some((p) => p.on_cpu);
    this.hasCulprits = this.hasCulprits || this.blame.stack.some((s) => s > 0);
    // Histograms know buckets only: no longest wait, no CPU, no thread.
    this.exact = data.source === "waits";
    this.duration_ns = this.bins * this.bin_ns;
    const last = Math.max(0, (this.facts.cpus || 1) - 1);
    const cpuName = data.cpu_group > 1 ? (c) => `${c}–${Math.max(c, Math.min(last, c + data.cpu_group - 1))}` : String;
    this.names = {
      cpu: data.cpus.map(cpuName), cgroup: data.cgroups, comm: data.comms, policy: data.policies, kind: this.kinds, bucket: data.buckets,
    };
    // A part may lack kinds of the recording.
    this.kindsThere = new Set(Array.from(new Set(this.row.kind), (k) => this.kinds[k]));
    this.scratch = new Uint32Array(this.length);
    // What the recording has, its parts are shown with.
    this.hasStacks = this.hasStacks || data.columns["trie.frame"].length > 1;
    this.hasTraces = this.hasTraces || data.buckets.some((b) => b.startsWith("ids ending in"));
  }

  // The kinds of a part, by the numbers they have in the whole recording.
  keepKinds(kinds) {
    const other = Math.max(0, kinds.indexOf(Text.REST));
    const number = this.kinds.map((k) => kinds.includes(k) ? kinds.indexOf(k) : other);
    // Rows of the kinds' own finer heatmap are kinds, too.
    const grids = Object.keys(this.columns).filter((name) => name === "grid-kind.y" || (name.startsWith("grid-") && name.endsWith(".kind")));
    for (const kind of [this.row.kind, this.blame.kind, ...grids.map((name) => this.columns[name])]) kind.forEach((k, i) => { kind[i] = number[k]; });
    this.kinds = kinds;
  }

  // Time within this cube (ns), in words, as time since the recording began; finer than its bins.
  when(ns) {
    const places = Math.min(9, Math.max(3, 10 - Math.ceil(Math.log10(this.bin_ns))));
    return ((this.offset_ns + ns) / 1e9).toFixed(places).replace(/\.?0+$/, "") + " s";
  }

  get lostKinds() { return this.kinds.filter((k) => this.lost_kinds.includes(k)); }

  get whole() { return this.part ? `From ${this.when(0)} to ${this.when(this.duration_ns)}` : "The whole recording"; }

  // The finer heatmap of an axis, if there is one.
  grid(axis) {
    const grid = Decode.group(this.columns, "grid-" + axis);
    if (!grid.t) return null;
    return { ...grid, sum_ns: Float64Array.from(grid.max_ns, (ns, i) => ns + grid.rest_ns[i]) };
  }

  // Longest wait of bucket b, or null for the last one, which has no end.
  highOf(b) {
    return b + 1 < this.low_ns.length ? this.low_ns[b + 1] - 1 : null;
  }

  // Rows of the cube in time bins x0 to x1, as [first, after].
  span(x0, x1) {
    return [Cube.firstFrom(this.row.t, x0), Cube.firstFrom(this.row.t, x1 + 1)];
  }

  static firstFrom(sorted, value) {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // Numbers of the rows of kinds that are on and, if there are cells, in those. The axis says which
  // of the heatmap's rows a row of the cube is in: place[column[i]].
  selected(kindsOn, axis, cells) {
    const { kind } = this.row;
    const { column, place } = axis;
    const on = Uint8Array.from(this.kinds, (k) => kindsOn.has(k));
    const [from, to] = cells ? this.span(cells.x0, cells.x1) : [0, this.length];
    const [y0, y1] = cells ? [cells.y0, cells.y1] : [-Infinity, Infinity];
    const out = this.scratch;
    let n = 0;
    for (let i = from; i < to; i++) {
      const y = place[column[i]];
      if (on[kind[i]] && y >= y0 && y <= y1) out[n++] = i;
    }
    return out.slice(0, n);
  }

  // Count, time and longest by one column, most time first.
  by(name, rows) {
    const keys = this.row[name];
    const { count, sum_ns, max_ns } = this.row;
    const size = this.names[name].length;
    const sums = { count: new Float64Array(size), ns: new Float64Array(size), max: new Float64Array(size) };
    for (let j = 0; j < rows.length; j++) {
      const i = rows[j];
      const key = keys[i];
      sums.count[key] += count[i];
      sums.ns[key] += sum_ns[i];
      if (max_ns[i] > sums.max[key]) sums.max[key] = max_ns[i];
    }
    const out = [];
    for (let key = 0; key < size; key++) {
      if (sums.count[key]) out.push({ key, name: this.names[name][key], count: sums.count[key], ns: sums.ns[key], max: sums.max[key] });
    }
    return out.sort((a, b) => b.ns - a.ns || b.count - a.count);
  }

  // Waits per bucket, and their totals.
  distribution(rows) {
    const { b, count, sum_ns, max_ns } = this.row;
    const counts = new Float64Array(this.low_ns.length);
    const total = { count: 0, ns: 0, max: 0, counts };
    for (let j = 0; j < rows.length; j++) {
      const i = rows[j];
      counts[b[i]] += count[i];
      total.count += count[i];
      total.ns += sum_ns[i];
      if (max_ns[i] > total.max) total.max = max_ns[i];
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

  // How much of a time (ns from time bin 0 on) is in gaps, as between merged recordings.
  unrecorded(from, to, gaps = this.gaps) {
    return gaps.reduce((sum, gap) => sum + Math.max(0, Math.min(to, gap.to) - Math.max(from, gap.from)), 0);
  }

  // Times in which none of some machines was recorded; undefined stands for any of them.
  gapsOf(machines) {
    const [first, ...others] = machines.map((machine) => (machine ? machine.gaps : this.gaps));
    const both = (a, b) => a.flatMap((x) => b.map((y) => ({ from: Math.max(x.from, y.from), to: Math.min(x.to, y.to) })).filter((z) => z.from < z.to));
    return others.reduce(both, first || this.gaps);
  }

  // Loss intervals that touch a time (ns from time bin 0 on).
  lossesIn(from, to) {
    return this.losses.filter((l) => l.from < to && l.to > from);
  }
}
