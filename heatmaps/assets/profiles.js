"use strict";
// Rows of profiles in a selection: those that were sampled within its time; where only a part of that
// time is in it, those whose trace waited in it, as far as their samples' labels say so.
const Profiles = (() => {
  // which: tells of a profile whether it is wanted. cells: null for everything.
  // labelled and alone: what was let in by its labels, and by time alone; out: what was not.
  function selected(cube, view, cells, which) {
    const { profile, owner, window, value } = cube.ran;
    const wanted = cube.profiles.map((p) => which(p));
    // All of a part is a selection of the recording.
    const places = cells || (cube.part ? { x0: 0, x1: cube.bins - 1, y0: 0, y1: view.axisNow.size - 1 } : null);
    const placed = places ? cube.profile_windows.map((w) => place(cube, places, w)) : null;
    const owned = places ? cube.owner.traced.map((_, o) => ownerFits(cube, view, places, o)) : null;
    const rows = new Uint32Array(profile.length);
    let n = 0;
    const sums = { labelled: 0, alone: 0, out: cube.profiles.reduce((sum, p, i) => sum + (wanted[i] ? p.outside : 0), 0) };
    for (let i = 0; i < profile.length; i++) {
      if (!wanted[profile[i]]) continue;
      const verdict = owned ? owned[owner[i]] : 0;
      const at = placed ? placed[window[i]] : WITHIN;
      const byTrace = at === PARTLY && verdict & TIME_FITS;
      if (verdict & OUT || (at !== WITHIN && !byTrace)) {
        sums.out += value[i];
        continue;
      }
      rows[n++] = i;
      sums[byTrace || verdict & ROW_FITS ? "labelled" : "alone"] += value[i];
    }
    return { rows: rows.slice(0, n), ...sums };
  }

  // Of a window: where it is to the selected time.
  const OUTSIDE = 0;
  const PARTLY = 1;
  const WITHIN = 2;
  // Of an owner, as bits: not in the selected rows, in them, and whether it waited in the time.
  const OUT = 1;
  const ROW_FITS = 2;
  const TIME_FITS = 4;

  // Selected time in ns; without end where the recording or its part ends, so that a profile that
  // began earlier is in a selection of all time: what is not of a part is not in its cube.
  function span(cube, { x0, x1 }) {
    return [x0 === 0 ? -Infinity : x0 * cube.bin_ns, x1 === cube.bins - 1 ? Infinity : (x1 + 1) * cube.bin_ns];
  }

  function place(cube, cells, window) {
    const [from, to] = span(cube, cells);
    if (!window) return from === -Infinity && to === Infinity ? WITHIN : PARTLY;
    const [start, end] = window;
    if (start >= from && end <= to) return WITHIN;
    return end > from && start < to ? PARTLY : OUTSIDE;
  }

  // Columns of owners hold one more than the number or the time; 0 is none.
  function ownerFits(cube, view, cells, o) {
    const { bucket, comm, start_ns, end_ns, traced } = cube.owner;
    const axis = view.axisNow;
    const inRows = (key) => axis.place[key] >= cells.y0 && axis.place[key] <= cells.y1;
    const partial = cells.y0 > 0 || cells.y1 < axis.size - 1;
    let fits = 0;
    if (partial && view.axis === "bucket" && traced[o] > 1) {
      if (!bucket[o] || !inRows(bucket[o] - 1)) return OUT;
      fits |= ROW_FITS;
    }
    if (partial && view.axis === "comm" && comm[o]) {
      if (!inRows(comm[o] - 1)) return OUT;
      fits |= ROW_FITS;
    }
    const [from, to] = span(cube, cells);
    if (end_ns[o] && end_ns[o] - 1 > from && start_ns[o] - 1 < to) fits |= TIME_FITS;
    return fits;
  }

  // What is shown of the profiles in one or two selections, in words. found: from `selected`.
  function words(cube, view, [a, b], format) {
    if (b) return said(view, view.cells, a, format, "A") + said(view, view.other, b, format, "B");
    if (view.cells) return said(view, view.cells, a, format, "the selection");
    return cube.part ? said(view, { y0: 0, y1: view.axisNow.size - 1 }, a, format, "this part") : "";
  }

  function said(view, cells, { labelled, alone, out }, format, where) {
    const { axisNow: axis } = view;
    const parts = [];
    if (labelled) parts.push(`${format(labelled)} by trace or thread of its samples`);
    if (alone) parts.push(`${format(alone)} by time alone`);
    const partial = cells.y0 > 0 || cells.y1 < axis.size - 1;
    const blind = parts.length && partial && view.axis !== "bucket" && view.axis !== "comm" ? ` Profiles do not know ${axis.unit}: that is of all of them.` : "";
    const left = out ? ` Left out: ${format(out)}, sampled at other times or for others, or at a time that is not known well enough.` : "";
    return ` In ${where}: ${parts.join(", ") || "nothing"}.${left}${blind}`;
  }

  // By function, what ran while it worked for one of the slow traces; of a native one also the
  // Python function that called it.
  function ofTrace(cube, trie, number) {
    const { profile, stack, owner, value } = cube.ran;
    const sums = new Map();
    for (let i = 0; i < profile.length; i++) {
      if (!cube.profiles[profile[i]].on_cpu || cube.owner.trace[owner[i]] !== number + 1) continue;
      const name = functionAt(trie, trie.ends[stack[i]]);
      sums.set(name, (sums.get(name) || 0) + value[i]);
    }
    return [...sums].sort((a, b) => b[1] - a[1]).map(([name, ns]) => ({ name, ns }));
  }

  function functionAt(trie, node) {
    const kind = (at) => trie.kinds[trie.frame[at]];
    let above = node;
    while (above && kind(above) !== "python") above = trie.parent[above];
    const name = trie.names[trie.frame[node]];
    return above && above !== node ? `${name} in ${trie.names[trie.frame[above]]}` : name;
  }

  return { selected, words, ofTrace };
})();
