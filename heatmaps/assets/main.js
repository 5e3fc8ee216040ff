"use strict";
// Wires data, view, controls and drawings together.
(async () => {
  const byId = (id) => document.getElementById(id);
  const CHOICES = ["axis", "measure", "scale", "stack", "weight", "order", "split", "compare", "blame", "profile"];

  function controls(cube, view, flame) {
    for (const [name, axis] of Object.entries(view.axes)) byId("axis").append(new Option(axis.title, name));
    const legend = byId("kinds").firstElementChild;
    byId("kinds").replaceChildren(legend, ...Text.inOrder(cube.kinds).map((kind) => {
      const box = Text.element("input", { type: "checkbox", value: kind });
      box.addEventListener("change", () => view.set({ kinds: cube.kinds.filter((k) => k === kind ? box.checked : view.kinds.includes(k)) }));
      return Text.element("label", { title: Text.meaning(kind) }, box, " ", Text.safe(Text.kind(kind)));
    }));
    byId("stack").append(...FlameView.options(cube));
    for (const name of CHOICES) {
      byId(name).addEventListener("change", (event) => view.set({ [name]: event.target.value }));
      // What this trace cannot show is not offered.
      for (const option of [...byId(name).options]) if (!view.choices()[name].includes(option.value)) option.remove();
    }
    byId("toolbar").addEventListener("submit", (event) => event.preventDefault());
    byId("clear").addEventListener("click", () => view.set({ cells: null, other: null, cursor: null }));
    byId("second").addEventListener("click", () => {
      view.set({ target: view.target === "b" ? "a" : "b", cursor: null });
      byId("heatmap").focus({ preventScroll: true });
    });
    byId("search").addEventListener("input", (event) => flame.search(event.target.value));
    byId("unzoom").addEventListener("click", () => flame.zoom(flame.root));
    flame.onZoom = (zoomed) => { byId("unzoom").disabled = !zoomed; };
  }

  function settings(cube, view) {
    for (const name of CHOICES) byId(name).value = view[name];
    for (const box of byId("kinds").querySelectorAll("input")) box.checked = view.kinds.includes(box.value);
    byId("clear").disabled = !view.cells;
    byId("second").disabled = !view.cells;
    byId("second").setAttribute("aria-pressed", String(view.target === "b"));
    byId("second").textContent = view.other ? "Change B" : "Compare …";
    byId("target").hidden = view.target !== "b";
    byId("compare-label").hidden = !view.other;
    byId("heat-title").textContent = `Waits over time, by ${view.axisNow.title}; colour is the ${Heatmap.MEASURES[view.measure]}`;
    byId("heatmap").setAttribute("aria-label", `Heatmap of waits: time by ${view.axisNow.title}`);
    byId("blame-title").textContent = "Because of whom" + (view.other ? ": B against A" : "");
    // The colours of what stands in for stacks are no languages.
    byId("keys-one").hidden = Boolean(view.other) || !cube.hasStacks;
    byId("keys-two").hidden = !view.other;
    byId("profile-label").hidden = !cube.hasRan || view.stack !== "victim";
    for (const key of ["key-ran", "key-ran-two"]) byId(key).hidden = !view.ranShown;
    byId("stack").disabled = !cube.hasStacks;
    byId("weight").disabled = !view.weighed;
    byId("blame").disabled = !cube.exact;
    byId("split").disabled = view.stack.startsWith("profile-");
  }

  try {
    const cube = new Cube(await Decode.data());
    // What the recording has, whatever the part has that the address names.
    byId("traces-panel").hidden = !cube.traces.length;
    byId("loss-help").hidden = !cube.losses.length;
    byId("gap-help").hidden = ![cube, ...cube.machines].some(({ gaps }) => gaps.length);
    const { victims } = cube;
    const exact = cube.served && cube.exact ? new Exact(cube) : null;
    if (exact) await exact.begin();
    const view = new View(cube, Axes.all(cube), victims);
    let stacks = Stacks.of(cube);
    const heatmap = new Heatmap(byId("heatmap"), cube, view, Tip);
    const flame = new Flame(byId("flame"), Tip, byId("flame-status"));
    const traces = new Traces(byId("traces"), cube, view, stacks.trie);
    Facts.draw(cube);
    Diagnosis.draw(cube, view);
    controls(cube, view, flame);
    let shown = null;
    const draw = async () => {
      settings(cube, view);
      const key = view.hash();
      if (key !== shown) {
        shown = key;
        // What it was about may be gone from under the mouse.
        Tip.hide();
        const a = view.rows(view.cells);
        const b = view.other && view.rows(view.other);
        Figures.draw(cube, view, a, b);
        FlameView.draw(cube, view, flame, stacks, a, b);
        Blame.draw(cube, view);
        traces.draw();
        if (exact) exact.refine(view);
      }
      await heatmap.draw();
    };
    view.onChange(draw);
    Theme.attach(byId("theme"), draw);
    await draw();
    if (exact) {
      exact.attach(view, heatmap, () => {
        view.axes = Axes.all(cube);
        stacks = Stacks.of(cube);
        traces.renew(stacks.trie);
      });
    }
    Keyboard.attach(byId("heatmap"), heatmap, view, byId("heat-status"));
  } catch (error) {
    byId("failure").hidden = false;
    byId("failure").textContent = "This report cannot be shown: " + error.message;
    throw error;
  } finally {
    byId("main").setAttribute("aria-busy", "false");
  }
})();
