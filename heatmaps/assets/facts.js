"use strict";
// The head of the page: where and when it was recorded, what is missing, and how it was made.
const Facts = (() => {
  const el = Text.element;

  function draw(cube) {
    const { facts } = cube;
    document.getElementById("host").textContent = Text.short(facts.host || facts.name, 60);
    document.getElementById("recorded").textContent = recorded(cube);
    const missing = document.getElementById("losses");
    missing.className = facts.losses.look;
    missing.textContent = Text.safe(facts.losses.sentence);
    const aside = [["Refused on purpose", facts.discards], ["Incomplete", facts.partial]];
    for (const [name, counted] of aside) {
      if (counted.length) missing.parentNode.append(el("p", { class: "aside" }, el("b", {}, name + ": "), counted.map(Text.safe).join(", ")));
    }
    const list = el("dl", {});
    for (const [name, value] of lines(cube)) {
      if (value) list.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
    }
    const notes = [...facts.notes, ...facts.not_attached.map((p) => "not attached: " + p)];
    document.getElementById("kinds-of-waits").append(...kinds(cube));
    document.getElementById("about").append(list, ...recordings(facts), el("h3", {}, "What was aggregated or is missing"),
      el("ul", { id: "notes" }, ...notes.map((n) => el("li", {}, Text.name(n, 400)))));
  }

  function kinds(cube) {
    const known = Text.inOrder(cube.kinds).filter(Text.meaning);
    return known.map((k) => el("div", {}, el("dt", {}, Text.kind(k)), el("dd", {}, Text.meaning(k) + ".")));
  }

  function recorded(cube) {
    const { facts } = cube;
    const when = facts.created.replace("T", " ").replace("+00:00", " UTC");
    const parts = [Text.short(when, 40), "for " + Text.duration(facts.recorded_ns), "Linux " + Text.inline(facts.kernel, 40)];
    if (facts.cpus) parts.push(facts.cpus + (facts.cpus === 1 ? " CPU" : " CPUs"));
    return parts.join(" · ");
  }

  function lines(cube) {
    const { facts } = cube;
    const least = facts.min_latency_ns ? ["waits of at least " + Text.limit(facts.min_latency_ns)] : [];
    const merged = facts.recordings.length > 0;
    return [
      ["Command", merged ? "" : Text.name(facts.command.join(" "), 300)],
      ["Filters", merged ? least.join() : Text.name(filters(facts, least), 200)],
      ["Machine", Text.short([facts.kernel, facts.arch].filter(Boolean).join(" "), 80)],
      ["Overhead", overhead(facts.overhead)],
    ];
  }

  function filters(part, more = []) {
    return [...Object.entries(part.filters).map(([k, v]) => `${k} ${v}`), ...more].join("; ") || "none: the whole machine";
  }

  // Of a merged trace where its recordings are in it.
  function recordings({ recordings: parts }) {
    if (!parts.length) return [];
    const heads = ["trace", Text.name("host"), Text.name("filters"), Text.name("command"), "from", "length", "process ids from", "CPUs from"];
    const box = Table.make("Recordings that were merged", heads, parts.map((part) => [
      Text.name(part.trace), Text.name(part.host), Text.name(filters(part), 40), Text.name(part.command.join(" "), 48),
      Text.seconds(part.from), Text.duration(part.ns), Text.number(part.pid), Text.number(part.cpu),
    ]));
    box.id = "recordings";
    return [box];
  }

  function overhead({ probe_ns: probes, probe_ns_at_least: least, recorder_cpu_ns: recorder, wall_ns: wall }) {
    if (!wall) return "";
    const share = (ns) => (100 * ns / wall).toFixed(2) + " % of one CPU";
    const parts = [];
    if (probes !== null && probes !== undefined) parts.push(`probes ${least ? "at least " : ""}${share(probes)}`);
    if (recorder !== null && recorder !== undefined) parts.push("recorder " + share(recorder));
    return parts.join(", ");
  }

  return { draw };
})();
