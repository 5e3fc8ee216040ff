"use strict";
// What is wrong, in sentences; each leads to the waits it is about.
const Diagnosis = (() => {
  const el = Text.element;
  const SHOWN = 3;
  // Columns of waits that are rows of the heatmap, the most telling first.
  const AXES = ["cgroup", "comm", "cpu", "policy", "kind"];

  function draw(cube, view) {
    const { findings, notes } = cube.diagnosis;
    const node = document.getElementById("diagnosis");
    node.append(...findings.map((f) => {
      const show = el("button", { type: "button", class: "show" }, "Show these waits");
      // Looked for when asked: a part of the recording has other rows, in other places.
      const offer = () => { show.hidden = !target(view, f); };
      view.onChange(offer);
      offer();
      show.addEventListener("click", () => view.set({ ...target(view, f), cursor: null, target: "a", other: null }));
      return el("li", { class: "finding" }, el("details", {},
        el("summary", {}, el("b", {}, f.title + ":"), " ", ...Text.marked(f.sentence, 900)),
        el("p", {}, ...Text.marked(f.advice, 900))), show);
    }));
    // A button for a single one would be as large as that.
    const rest = [...node.children].slice(findings.length > SHOWN + 1 ? SHOWN : findings.length);
    const more = document.getElementById("more-findings");
    const all = () => {
      for (const item of rest) item.hidden = false;
      more.hidden = true;
    };
    for (const item of rest) item.hidden = true;
    more.hidden = !rest.length;
    more.textContent = `Show all ${findings.length} findings`;
    more.addEventListener("click", all);
    // On paper nothing can be opened.
    window.addEventListener("beforeprint", () => {
      all();
      for (const details of node.querySelectorAll("details")) details.open = true;
    });
    const beside = document.getElementById("diagnosis-note");
    const nothing = findings.length ? [] : ["Nothing is wrong, as far as this recording shows."];
    // It was not looked for everywhere.
    if (notes.length) beside.className = "fair";
    beside.textContent = [...nothing, ...notes.map(Text.safe)].join(" ");
    beside.hidden = !beside.textContent;
  }

  // The view of the waits that a finding is about: their row over all of the time.
  function target(view, { values }) {
    for (const name of AXES) {
      const axis = view.axes[name];
      if (!axis || !values[name] || values[name].length !== 1) continue;
      const key = view.cube.names[name].indexOf(String(values[name][0]));
      if (key < 0 || !axis.keys.includes(key)) continue;
      const y = axis.place[key];
      const kinds = values.kind ? view.cube.kinds.filter((k) => values.kind.includes(k)) : view.defaults.kinds;
      return { axis: name, kinds: kinds.length ? kinds : view.defaults.kinds, cells: { x0: 0, x1: view.cube.bins - 1, y0: y, y1: y } };
    }
    return null;
  }

  return { draw };
})();
