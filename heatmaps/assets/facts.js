"use strict";
// The head of the page: what is missing first, then where, when and how it was recorded.
const Facts = (() => {
  const el = Text.element;

  function draw(cube) {
    const { facts } = cube;
    document.getElementById("host").textContent = Text.short(facts.host || facts.name, 60);
    const node = document.getElementById("facts");
    const gone = facts.lost || facts.missed;
    node.append(el("p", { class: gone ? "bad" : "good", id: "losses" },
      gone ? Text.safe(facts.sentence) + "." : "Nothing was lost."));
    const aside = [
      ["Refused on purpose", counters(facts.discards)],
      ["Incomplete", counters(facts.partial)],
    ].filter(([, value]) => value);
    const list = el("dl", { class: "facts" });
    for (const [name, value] of [...aside, ...lines(cube)]) {
      if (value) list.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
    }
    node.append(list);
    const notes = [...facts.notes, ...facts.not_attached.map((p) => "not attached: " + p)];
    if (notes.length) {
      node.append(el("details", { id: "notes", open: "" }, el("summary", {}, `What was aggregated or is missing (${notes.length})`),
        el("ul", {}, ...notes.map((n) => el("li", {}, Text.name(n, 400))))));
    }
  }

  function counters(list) {
    return list.map(([name, value]) => `${Text.number(value)} ${Text.safe(name.replace(/_/g, " "))}`).join(", ");
  }

  function lines(cube) {
    const { facts } = cube;
    const cpus = facts.cpus ? `, ${facts.cpus} CPUs` : "";
    const filters = Object.entries(facts.filters).map(([k, v]) => `${k} ${v}`);
    if (facts.min_latency_ns) filters.push("waits of at least " + Text.limit(facts.min_latency_ns));
    return [
      ["Recorded", Text.short(facts.created.replace("T", " ").replace("+00:00", " UTC"), 40) + ", for " + Text.duration(cube.duration_ns)],
      ["Kernel", Text.short([facts.kernel, facts.arch].filter(Boolean).join(" "), 80) + cpus],
      ["Command", Text.name(facts.command.join(" "), 160)],
      ["Filters", filters.length ? Text.name(filters.join("; "), 200) : "none: the whole machine"],
      ["Overhead", overhead(facts.overhead)],
    ];
  }

  function overhead({ probe_ns: probes, recorder_cpu_ns: recorder, wall_ns: wall }) {
    if (!wall) return "";
    const share = (ns) => (100 * ns / wall).toFixed(2) + " % of one CPU";
    const parts = [];
    if (probes !== null && probes !== undefined) parts.push("probes " + share(probes));
    if (recorder !== null && recorder !== undefined) parts.push("recorder " + share(recorder));
    return parts.join(", ");
  }

  return { draw };
})();
