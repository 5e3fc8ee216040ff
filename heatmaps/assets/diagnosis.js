"use strict";
// What is wrong, in sentences; each leads to the waits it is about.
const Diagnosis = (() => {
  const el = Text.element;
  const SHOWN = 3;
  // Columns of waits that are rows of the heatmap, the most telling first.
  const AXES = ["cgroup", "comm", "cpu", "policy"];

  function draw(cube, view) {
    const { findings, notes } = cube.diagnosis;
    const node = document.getElementById("diagnosis");
    node.append(...findings.map((f) => {
      const show = el("button", { type: "button", class: "show" });
      // Looked for when asked: a part of the recording has other rows, in other places.
      const offer = () => {
        const found = target(view, f);
        show.hidden = !found;
        show.textContent = found ? found.says : "";
      };
      view.onChange(offer);
      offer();
      show.addEventListener("click", () => view.set({ ...target(view, f).shown, cursor: null, target: "a", other: null }));
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

  // The view of the waits that a finding is about, their row over all of the time, and what to call
  // it: where the heatmap cannot tell them from others, it is of all of those. Null for none.
  function target(view, { values }) {
    const { cube } = view;
    const kinds = kindsOf(cube, values);
    const axis = AXES.map((name) => view.axes[name]).find((a) => a && rowOf(cube, a, values) !== null);
    // Without a row it is of kinds alone: of all that are on at first, it would show nothing new.
    if (!kinds || !(axis || (values.kind && kinds.join() !== view.defaults.kinds.join()))) return null;
    const unseen = Object.keys(values).filter((name) => name !== "kind" && !(axis && name === axis.name));
    const y = axis && rowOf(cube, axis, values);
    return {
      shown: axis ? { kinds, axis: axis.name, cells: { x0: 0, x1: cube.bins - 1, y0: y, y1: y } } : { kinds, cells: null },
      says: !unseen.length ? "Show these waits" : "Show all waits" + (axis ? ` of this ${axis.title}` : "")
        + (values.kind ? ": " + Text.inOrder(kinds).map((k) => Text.inline(Text.kind(k), 30)).join(", ") : ""),
    };
  }

  // Those of a finding, else all; null where they may be together with others, or none is here.
  function kindsOf({ kinds, kindsThere }, values) {
    if (!values.kind) return kinds;
    const found = kinds.filter((k) => values.kind.includes(k));
    const told = found.length === values.kind.length || !kinds.includes(Text.REST);
    return told && found.some((k) => kindsThere.has(k)) ? found : null;
  }

  // The row of the one value of an axis; null where it has none of its own.
  function rowOf(cube, { name, keys, place }, values) {
    if (!values[name] || values[name].length !== 1) return null;
    const key = cube.names[name].indexOf(String(values[name][0]));
    return keys.includes(key) ? place[key] : null;
  }

  return { draw };
})();
