"use strict";
// Numbers about the selection: totals, limits of percentiles, losses, culprits and tables.
const Figures = (() => {
  const SHOWN = 10;
  const QUANTILES = [["p50", 0.5], ["p90", 0.9], ["p99", 0.99], ["p99.9", 0.999]];
  const el = Text.element;

  function draw(cube, view, rows) {
    const total = cube.distribution(rows);
    const cells = view.cells;
    const kinds = cells ? cube.by("kind", rows) : cube.totalsOf(view.kindsOn);
    total.ns = kinds.reduce((sum, k) => sum + k.ns, 0);
    document.getElementById("figures-title").textContent = cells ? "Selected: " + what(cube, view) : "The whole recording";
    const figures = [["waits", Text.number(total.count)], ["time lost", Text.duration(total.ns)]];
    for (const [label, q] of QUANTILES) {
      const [low, high] = cube.quantile(total, q);
      figures.push([label, total.count ? Text.between(low, high) : "–"]);
    }
    const longest = () => cube.exact ? Text.duration(total.max) : Text.between(...cube.quantile(total, 1));
    figures.push(["longest", total.count ? longest() : "–"]);
    document.getElementById("figures").replaceChildren(...figures.map(([label, value]) =>
      el("div", { class: "figure", "data-name": label }, el("b", {}, value), el("span", {}, label))));
    Object.assign(document.getElementById("figures").dataset, exactly(cube, view, total));
    losses(cube, cells);
    const names = cube.exact ? ["cgroup", "policy", "cpu"] : ["cgroup", "policy"];
    const [cgroup, ...small] = names.map((name) => group(cube, name, cube.by(name, rows), total));
    small.unshift(group(cube, "kind", kinds, total));
    document.getElementById("tables").replaceChildren(culprits(cube, view, kinds), cgroup, el("div", { class: "stacked" }, ...small));
  }

  // The same as plain numbers (ns), for whoever reads the page with a program.
  function exactly(cube, view, total) {
    const { x0, x1, y0, y1 } = view.cells || { x0: 0, x1: cube.bins - 1, y0: 0, y1: view.axisNow.size - 1 };
    const at = (bin) => BigInt(cube.start_ns) + BigInt(bin * cube.bin_ns);
    return {
      count: total.count, ns: total.ns, max: total.max, from: at(x0), to: at(x1 + 1),
      rows: JSON.stringify(view.axisNow.exactly(y0, y1)),
    };
  }

  function what(cube, view) {
    const { x0, x1, y0, y1 } = view.cells;
    const time = Text.seconds(x0 * cube.bin_ns) + " to " + Text.seconds((x1 + 1) * cube.bin_ns);
    return view.axisNow.range(y0, y1) + ", " + time;
  }

  function losses(cube, cells) {
    const node = document.getElementById("selection-losses");
    const list = cells ? cube.lossesIn(cells.x0, cells.x1) : cube.losses;
    const lost = list.reduce((sum, l) => sum + l.value, 0);
    const cpus = [...new Set(list.map((l) => l.cpu))].sort((a, b) => a - b);
    const when = cells ? "in this time range" : "in the recording";
    node.className = lost ? "bad" : "good";
    node.textContent = lost
      ? `${Text.number(lost)} waits were lost ${when}, on CPU ${cpus.join(", ")}: they are in none of these numbers, and the true percentiles may be higher.`
      : `No wait was lost ${when}` + (cube.facts.missed ? "; the waits that were not seen whole (top of the page) are not in these numbers." : ".");
  }

  function table(title, heads, lines, note) {
    const body = lines.slice(0, SHOWN).map((line) => row("td", line));
    const box = el("div", { class: "table" }, el("h3", {}, title));
    if (note) box.append(el("p", { class: "help" }, note));
    const full = el("table", {}, el("thead", {}, row("th", heads)), el("tbody", {}, ...body));
    box.append(full);
    if (lines.length > SHOWN) {
      const more = el("button", { type: "button", class: "more" }, `Show all ${Text.number(lines.length)}`);
      more.addEventListener("click", () => {
        full.tBodies[0].append(...lines.slice(SHOWN).map((line) => row("td", line)));
        more.remove();
      });
      box.append(more);
    }
    if (!lines.length && heads.length) box.append(el("p", { class: "help" }, "None."));
    return box;
  }

  function row(tag, values) {
    return el("tr", {}, ...values.map((v, i) => el(tag, { class: i ? "number" : null, scope: tag === "th" ? "col" : null }, v)));
  }

  const TITLES = { kind: "By kind", cgroup: "By cgroup", policy: "By policy", cpu: "By CPU" };

  function group(cube, name, sums, total) {
    const heads = [name === "cpu" ? "CPU" : name, "waits", "time lost", "share"];
    if (cube.exact) heads.push("longest");
    return table(TITLES[name], heads, sums.map((s) => {
      const line = [Text.name(s.name), Text.number(s.count), Text.duration(s.ns), Text.percent(s.ns, total.ns)];
      return cube.exact ? [...line, Text.duration(s.max)] : line;
    }));
  }

  function culprits(cube, view, kinds) {
    if (!cube.exact) return table("Culprits", [], [], "Histograms do not tell who ran meanwhile.");
    const { exact, list } = cube.culpritsOf(view.kindsOn, view.axisNow, view.cells);
    const note = exact ? "Who ran most on that CPU during each run-queue wait."
      : `For all ${view.axis === "latency" ? "latencies" : view.axisNow.title + "s"} in the selected time: culprits are kept by time, cgroup and kind.`;
    // Only waits in a run queue have a culprit.
    const queued = kinds.filter((k) => k.name.startsWith("runq_")).reduce((sum, k) => sum + k.ns, 0);
    const heads = ["who ran meanwhile", "waits", "ran for"];
    return table("Culprits", exact ? [...heads, "of run-queue time"] : heads, list.map((s) => {
      const line = [Text.name(s.name), Text.number(s.count), Text.duration(s.ns)];
      return exact ? [...line, Text.percent(s.ns, queued)] : line;
    }), note);
  }

  return { draw, table };
})();
