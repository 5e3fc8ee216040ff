"use strict";
// The page of a comparison: wires its data, choices and drawings together.
(async () => {
  const byId = (id) => document.getElementById(id);
  const el = Text.element;
  const FIGURES = { waits: "waits", total_ns: "time lost", p50_ns: "p50", p90_ns: "p90", p99_ns: "p99", p999_ns: "p99.9", max_ns: "longest" };
  const BY = { kind: "By kind", cgroup: "By cgroup", comm: "By thread", pid: "By process", cpu: "By CPU", policy: "By scheduling policy" };
  const HEADLINES = ["total_ns", "p50_ns", "p99_ns", "p999_ns"];

  const HEADED = 4;

  const className = (name) => name === "runq" ? "run queue" : Text.inline(Text.kind(name));
  const figureName = (data, name) => FIGURES[name] + (name === "waits" || name === "total_ns" ? ` / ${data.per}` : "");

  // What is shown: in the address's hash, so that a link opens what its sender saw.
  class State {
    constructor(data) {
      const classes = Object.keys(data.classes);
      this.known = { class: classes.length ? classes : [""], compare: ["rate", "share"], order: ["root", "leaf"], profile: ["with", "without"] };
      this.read();
    }

    read() {
      const hash = new URLSearchParams(location.hash.slice(1));
      for (const [name, known] of Object.entries(this.known)) this[name] = known.includes(hash.get(name)) ? hash.get(name) : known[0];
    }

    write() {
      const hash = new URLSearchParams();
      for (const [name, known] of Object.entries(this.known)) if (this[name] !== known[0]) hash.set(name, this[name]);
      try {
        history.replaceState(null, "", "#" + hash);
      } catch {
        // Safari allows 100 changes in 30 s: the address lags behind, the picture does not.
      }
    }
  }

  // Stacks of both sides, under these names in the data, as rows of one table.
  function rowsOf(data, ...names) {
    const [a, b] = names.map((name) => Decode.group(data.columns, name));
    const [n, m] = [a.stack.length, b.stack.length];
    const joined = (x, y) => Float64Array.from({ length: n + m }, (_, i) => (i < n ? x[i] : y[i - n]));
    return {
      a: Uint32Array.from({ length: n }, (_, i) => i), b: Uint32Array.from({ length: m }, (_, i) => n + i),
      column: joined(a.stack, b.stack), values: joined(a.ns, b.ns),
    };
  }

  // What ran on both sides, as the flame graph takes it beside what waited; null without profiles.
  function ranOf(data) {
    if (!data.ran) return null;
    const { column, values, a, b } = rowsOf(data, "ran_a", "ran_b");
    return { column, values, a: { rows: a }, b: { rows: b } };
  }

  function profileNote(data) {
    const words = ["A", "B"].map((name, i) => `${name}: ${data.profiles[i].map((s) => Text.short(s, 200)).join("; ") || "nothing"}.`);
    return `Waiting and, from profiles, running, whoever it ran for. ${words.join(" ")}`;
  }

  function head(data) {
    const side = (name, of, i) => {
      const size = `${Text.duration(of.seconds * 1e9)} recorded` + (of.per === "trace" ? `, ${Text.number(of.size)} traces` : "");
      const words = [Text.inline(of.name, 120), data.hosts[i] && "on " + Text.inline(data.hosts[i], 40), size].filter(Boolean).join(" · ");
      return el("div", { class: "notice" }, el("p", {}, el("b", { class: "which " + name.toLowerCase() }, name), words), el("p", { class: data.losses[i].look }, Text.short(data.losses[i].sentence, 300)));
    };
    byId("sides").replaceChildren(side("A", data.a, 0), side("B", data.b, 1));
    byId("recorded").textContent = `Counts and times are per ${data.per} of each side.`;
    byId("notes").replaceChildren(...data.notes.map((n) => el("li", {}, Text.name(n, 400))),
      el("li", {}, "B − A is certain where its 95 % interval does not hold zero; the interval is from blocks of time, drawn again and again."),
      el("li", {}, "Groups other than kinds are of run-queue and throttled waits, unless kinds were asked for."));
  }

  // What differs for certain, the largest change in proportion first.
  function verdict(data) {
    const ratio = ({ a, b }) => Math.abs(Math.log((b || 1) / (a || 1)));
    const certain = Object.entries(data.classes).filter(([name]) => name === "runq" || data.lost_kinds.includes(name))
      .flatMap(([name, changes]) => changes.filter((c) => c.certain && c.difference && HEADLINES.includes(c.name)).map((c) => ({ name, c })))
      .sort((x, y) => ratio(y.c) - ratio(x.c));
    const more = certain.length - HEADED;
    byId("verdict").replaceChildren(...certain.slice(0, HEADED).map(({ name, c }) => {
      const change = `${Text.duration(c.a)} in A, ${Text.duration(c.b)} in B`;
      const between = `${Text.signed(c.low, Text.duration)} to ${Text.signed(c.high, Text.duration)}`;
      return el("li", { class: "finding" }, el("span", {}, el("b", { class: c.low > 0 ? "worse" : "better" }, c.low > 0 ? "Slower: " : "Faster: "),
        `${className(name)}, ${figureName(data, c.name)}: ${change} (${between})`));
    }), ...(more > 0 ? [el("li", { class: "finding" }, `and ${more} more that ${more === 1 ? "differs" : "differ"} for certain: choose other waits below`)] : []));
    const none = byId("no-verdict");
    none.hidden = certain.length > 0;
    const elsewhere = [...Object.values(data.classes), ...data.groups.map((g) => g.changes)].flat().some((c) => c.certain && c.difference);
    if (elsewhere) {
      none.className = "fair";
      none.textContent = "None of the largest figures differs for certain; what does is marked in the tables below.";
    } else if (!Object.keys(data.classes).length) none.textContent = "Neither side has waits.";
  }

  function groups(data) {
    byId("groups").replaceChildren(...data.groups.map((g) => {
      const word = (c) => (c.name === null ? "" : g.by === "kind" ? Text.kind(String(c.name)) : String(c.name));
      const named = Text.namer(g.changes.map(word));
      const rows = g.changes.map((c) => Changes.line(c, named(word(c)), Text.duration));
      if (g.rest) rows.push(Changes.line(g.rest, Text.rest(g.rest_groups), Text.duration));
      const box = Changes.table(BY[g.by] || "By " + Text.safe(g.by), `time lost / ${data.per}`, rows);
      box.dataset.by = g.by;
      return box;
    }));
  }

  function drawn(data, state, curves) {
    const changes = data.classes[state.class] || [];
    byId("figures").replaceChildren(Changes.table("", "figure", changes.map((c) => Changes.line(c, figureName(data, c.name)))));
    curves.show(data.curves[state.class] || { at: [], a: { value: [] }, b: { value: [] } });
    byId("curves-table").lastElementChild.replaceChildren(curves.table());
  }

  try {
    const data = await Decode.data();
    const state = new State(data);
    const trie = Trie.fromPage(data);
    const sources = state.known.class.map((name, i) => ({ trie, splits: {}, ...(name ? rowsOf(data, "a" + i, "b" + i) : { a: [], b: [], column: [], values: [] }) }));
    const ran = ranOf(data);
    const curves = new Curves(byId("curves"), Tip, data.per);
    const flame = new Flame(byId("flame"), Tip, byId("flame-status"));
    byId("class").append(...state.known.class.map((name) => new Option(className(name), name)));
    byId("profile-label").hidden = !ran;
    byId("compare").options[0].textContent = `time per ${data.per}`;
    const draw = () => {
      for (const name of Object.keys(state.known)) byId(name).value = state[name];
      drawn(data, state, curves);
      const shown = state.profile === "with" ? ran : null;
      byId("key-ran").hidden = !shown;
      byId("flame-note").hidden = !shown;
      byId("flame-note").textContent = shown ? profileNote(data) : "";
      const tree = FlameTree.of({ ...sources[state.known.class.indexOf(state.class)], ran: shown }, state, { a: data.a.size, b: data.b.size });
      flame.scaleName = state.compare === "rate" ? `per ${data.per}` : "share";
      flame.show(tree, Text.duration);
      const of = state.class && `, ${className(state.class)}`;
      byId("curves-title").textContent = `How often they waited how long${of}`;
      byId("flame-title").textContent = `Where they waited${of}: B against A`;
      Object.assign(byId("flame").dataset, { value: tree.root.a, other: tree.root.b });
      FlameTable.attach(tree, Text.duration);
    };
    for (const name of Object.keys(state.known)) {
      byId(name).addEventListener("change", (event) => {
        state[name] = event.target.value;
        state.write();
        draw();
      });
    }
    window.addEventListener("hashchange", () => { state.read(); draw(); });
    byId("search").addEventListener("input", (event) => flame.search(event.target.value));
    byId("unzoom").addEventListener("click", () => flame.zoom(flame.root));
    flame.onZoom = (zoomed) => { byId("unzoom").disabled = !zoomed; };
    head(data);
    verdict(data);
    groups(data);
    Theme.attach(byId("theme"), () => {});
    draw();
  } catch (error) {
    byId("failure").hidden = false;
    byId("failure").textContent = "This comparison cannot be shown: " + error.message;
    throw error;
  } finally {
    byId("main").setAttribute("aria-busy", "false");
  }
})();
