"use strict";
// Numbers about the selection: totals, limits of percentiles, losses, culprits and tables.
const Figures = (() => {
  const SHOWN = 10;
  const QUANTILES = [["p50", 0.5], ["p90", 0.9], ["p99", 0.99], ["p99.9", 0.999]];
  const el = Text.element;

  function draw(cube, view, rows) {
    const total = cube.distribution(rows);
    const cells = view.cells;
    document.getElementById("figures-title").textContent = cells ? "Selected: " + what(cube, view) : "The whole recording";
    const figures = [["waits", Text.number(total.count)], ["time lost", Text.duration(total.ns)]];
    for (const [label, q] of QUANTILES) {
      const [low, high] = cube.quantile(total, q);
      figures.push([label, total.count ? Text.between(low, high) : "–"]);
    }
    const exact = cube.source === "waits";
    figures.push(["longest", total.count ? (exact ? Text.duration(total.max) : "at most " + Text.limit(total.max)) : "–"]);
    document.getElementById("figures").replaceChildren(...figures.map(([label, value]) =>
      el("div", { class: "figure", "data-name": label }, el("b", {}, value), el("span", {}, label))));
    Object.assign(document.getElementById("figures").dataset, exactly(cube, view, total));
    losses(cube, cells);
    const [cgroup, ...small] = ["cgroup", "kind", "policy", "cpu"].map((name) => group(cube, name, rows, total));
    document.getElementById("tables").replaceChildren(culprits(cube, view, total), cgroup, el("div", { class: "stacked" }, ...small));
  }

  // The same as plain numbers (ns), for whoever reads the page with a program.
  function exactly(cube, view, total) {
    const { x0, x1, y0, y1 } = view.cells || { x0: 0, x1: cube.bins - 1, y0: 0, y1: view.axisNow.size - 1 };
    return {
      count: total.count, ns: total.ns, max: total.max, from: x0 * cube.bin_ns, to: (x1 + 1) * cube.bin_ns,
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
    if (!lines.length) box.append(el("p", { class: "help" }, "None."));
    return box;
  }

  function row(tag, values) {
    return el("tr", {}, ...values.map((v, i) => el(tag, { class: i ? "number" : null, scope: tag === "th" ? "col" : null }, v)));
  }

  const TITLES = { kind: "By kind", cgroup: "By cgroup", policy: "By policy", cpu: "By CPU" };

  function group(cube, name, rows, total) {
    const longest = cube.source === "waits" ? "longest" : "longest, at most";
    return table(TITLES[name], [name === "cpu" ? "CPU" : name, "waits", "time lost", "share", longest],
      cube.by(name, rows).map((s) => [Text.name(s.name), Text.number(s.count), Text.duration(s.ns), Text.percent(s.ns, total.ns), Text.duration(s.max)]));
  }

  function culprits(cube, view, total) {
    const { exact, list } = cube.culpritsOf(view.kindsOn, view.axisNow, view.cells);
    const note = exact ? "Who ran most on that CPU during each wait."
      : `For all ${view.axis === "latency" ? "latencies" : view.axisNow.title + "s"} in the selected time: culprits are kept by time, cgroup and kind.`;
    const whole = exact ? total.ns : 0;
    return table("Culprits", ["who ran meanwhile", "waits", "ran for", whole ? "of the time lost" : ""],
      list.map((s) => [Text.name(s.name), Text.number(s.count), Text.duration(s.ns), Text.percent(s.ns, whole)]), note);
  }

  return { draw, table };
})();
