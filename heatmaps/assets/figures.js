"use strict";
// Numbers about the selections: totals, limits of percentiles, losses, and tables by name.
const Figures = (() => {
  const QUANTILES = [["p50", 0.5], ["p90", 0.9], ["p99", 0.99], ["p99.9", 0.999]];
  const el = Text.element;

  // a, b: rows of the selections; b is null for one.
  function draw(cube, view, a, b) {
    const one = about(cube, view, view.cells, a);
    const lines = [line(cube, view, view.cells, one, b ? "A" : "")];
    const two = b && about(cube, view, view.other, b);
    if (b) lines.push(line(cube, view, view.other, two, "B"), change(cube, view, one.total, two.total));
    document.getElementById("figures").replaceChildren(...lines);
    document.getElementById("figures").classList.toggle("two", Boolean(b));
    document.getElementById("figures").classList.toggle("bucketed", !cube.exact);
    Object.assign(document.getElementById("figures").dataset, exactly(cube, view, one.total));
    losses(cube, view);
    const names = ["cgroup", ...(cube.exact ? ["comm"] : []), "policy", ...(cube.exact ? ["cpu"] : [])];
    if (cube.hasTraces) names.push("bucket");
    document.getElementById("tables-title").textContent = view.cells ? "Of the selection" : cube.part ? "Of this part of the recording" : "Of the whole recording";
    if (b) {
      compared(cube, view, ["kind", ...names], [a, b], [one.total.ns, two.total.ns]);
      return;
    }
    const tables = names.map((name) => group(cube, name, cube.by(name, a), one.total));
    const kinds = one.kinds.map((k) => ({ ...k, name: Text.kind(k.name) }));
    document.getElementById("tables").replaceChildren(group(cube, "kind", kinds, one.total), ...tables);
  }

  function about(cube, view, cells, rows) {
    const total = cube.distribution(rows);
    const kinds = cells ? cube.by("kind", rows) : cube.totalsOf(view.kindsOn);
    total.ns = kinds.reduce((sum, k) => sum + k.ns, 0);
    return { total, kinds };
  }

  function line(cube, view, cells, { total }, name) {
    const figures = [["waits", Text.number(total.count)], ["time lost", Text.duration(total.ns)]];
    for (const [label, q] of QUANTILES) {
      const [low, high] = cube.quantile(total, q);
      figures.push([label, total.count ? Text.between(low, high) : "–"]);
    }
    const longest = () => cube.exact ? Text.duration(total.max) : Text.between(...cube.quantile(total, 1));
    figures.push(["longest", total.count ? longest() : "–"]);
    // Percentiles of waits that are long anyway are none of all waits.
    const least = cube.facts.min_latency_ns;
    const title = (cells ? view.words(cells) : cube.whole) + (least && cube.exact ? `, waits of ${Text.limit(least)} or more` : "");
    const label = name ? el("b", { class: "which " + name.toLowerCase() }, name) : "";
    return el("div", { class: "figures" },
      el("p", { class: "figures-title" }, label, cells && !name ? "Selected: " : "", title),
      el("div", { class: "tiles" }, ...figures.map(([what, value]) =>
        el("div", { class: "figure", "data-name": what }, el("b", {}, value), el("span", {}, what)))));
  }

  function compared(cube, view, names, [a, b], totals) {
    const measure = Versus.measure(view, totals);
    document.getElementById("tables-title").textContent = `B against A, ${measure.words}`;
    document.getElementById("tables").replaceChildren(...names.map((name) => {
      const sums = Versus.joined(cube.by(name, a), cube.by(name, b));
      const word = (s) => (name === "kind" ? Text.kind(s.name) : s.name);
      const named = Text.namer(sums.map(word), 36, name);
      const lines = sums.map((s) => ({ ...s, heads: [named(word(s))] }));
      const box = Versus.table(TITLES[name], [headOf(name)], lines, measure);
      box.dataset.by = name;
      return box;
    }));
  }

  // How much more there is in B: of percentiles, which are known to a bucket, by their middles.
  function change(cube, view, a, b) {
    const [sa, sb] = [view.seconds(view.cells), view.seconds(view.other)];
    const figures = [["waits / s", times(a.count / sa, b.count / sb)], ["time lost / s", times(a.ns / sa, b.ns / sb)]];
    const middle = ([low, high]) => Math.sqrt(Math.max(1, low) * Math.max(1, high === null ? low : high));
    for (const [label, q] of QUANTILES) figures.push([label, a.count && b.count ? times(middle(cube.quantile(a, q)), middle(cube.quantile(b, q))) : "–"]);
    figures.push(["longest", cube.exact ? times(a.max, b.max) : "–"]);
    return el("div", { class: "figures change" }, el("p", { class: "figures-title" }, "B against A"),
      el("div", { class: "tiles" }, ...figures.map(([what, value]) => el("div", { class: "figure", "data-change": what }, el("b", {}, value), el("span", {}, what)))));
  }

  const times = (x, y) => x === y ? "the same" : x && y ? "× " + (y / x).toLocaleString("en", { maximumSignificantDigits: 3 }) : "–";

  // The same as plain numbers (ns), for whoever reads the page with a program.
  function exactly(cube, view, total) {
    const { x0, x1, y0, y1 } = view.cells || { x0: 0, x1: cube.bins - 1, y0: 0, y1: view.axisNow.size - 1 };
    const at = (bin) => BigInt(cube.start_ns) + BigInt(bin * cube.bin_ns);
    return {
      count: total.count, ns: total.ns, max: total.max, from: at(x0), to: at(x1 + 1),
      rows: JSON.stringify(view.axisNow.exactly(y0, y1)),
    };
  }

  function losses(cube, view) {
    const node = document.getElementById("selection-losses");
    const selected = [view.cells, view.other].filter(Boolean);
    const list = selected.length ? [...new Set(selected.flatMap((s) => view.losses(s)))] : cube.losses;
    const lost = list.reduce((sum, l) => sum + l.value, 0);
    const cpus = [...new Set(list.map((l) => l.cpu))].sort((x, y) => x - y);
    const selection = view.axisNow.rowOf ? "in this time range on these CPUs" : "in this time range";
    const when = selected.length ? selection : cube.part ? "in this part of the recording" : "in the recording";
    const gap = unrecorded(cube, view, selected);
    node.hidden = !lost && !selected.length && !gap;
    const { unread } = cube.facts;
    node.className = lost || unread ? "bad" : "good";
    node.textContent = (lost
      ? `${Text.waits(lost)} ${lost === 1 ? "was" : "were"} lost ${when}, on CPU ${cpus.join(", ")}: in none of these numbers, and the true percentiles may be higher.`
      : unread ? `Parts of the trace cannot be read (top of the page): what is missing ${when} is not known.`
      : `No wait was lost ${when}` + (cube.facts.missed ? "; the waits that were not seen whole (top of the page) are not in these numbers." : ".")) + gap;
  }

  // What of the time is outside the recordings of a merged trace, in a sentence.
  function unrecorded(cube, view, selected) {
    const times = selected.length ? selected.map((cells) => view.times(cells)) : [[0, cube.duration_ns]];
    const gaps = selected.length ? selected.map((cells) => view.unrecorded(cells)) : [cube.unrecorded(0, cube.duration_ns)];
    if (!gaps.some(Boolean)) return "";
    const said = times.map(([from, to], i) => `${Text.duration(gaps[i])} of ${times.length > 1 ? `${"AB"[i]}'s ` : "these "}${Text.duration(to - from)}`);
    return ` Nothing was recorded in ${said.join(" and ")}, outside the recordings that were merged.`;
  }

  const TITLES = { kind: "By kind", cgroup: "By cgroup", comm: "By thread", policy: "By scheduling policy", cpu: "By CPU", bucket: "By trace bucket" };

  const headOf = (name) => (name === "cpu" ? "CPU" : name === "comm" ? "thread" : name === "bucket" ? "trace bucket" : name);

  function group(cube, name, sums, total) {
    const heads = [headOf(name), "waits", "time lost", "share"];
    if (cube.exact) heads.push("longest");
    const named = Text.namer(sums.map((s) => s.name), 36, name);
    return Table.make(TITLES[name], heads, sums.map((s) => {
      const cells = [named(s.name), Text.number(s.count), Text.duration(s.ns), Table.bar(Text.percent(s.ns, total.ns), s.ns, total.ns)];
      return cube.exact ? [...cells, Text.duration(s.max)] : cells;
    }));
  }

  return { draw, times };
})();
