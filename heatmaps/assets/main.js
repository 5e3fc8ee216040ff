"use strict";
// Wires data, view, controls and drawings together.
(async () => {
  const byId = (id) => document.getElementById(id);
  const CHOICES = ["axis", "measure", "scale", "stack", "weight", "order", "split", "compare", "blame", "profile"];

  function controls(cube, view, flame) {
    for (const [name, axis] of Object.entries(view.axes)) byId("axis").append(new Option(axis.title, name));
    const legend = byId("kinds").firstElementChild;
    byId("kinds").replaceChildren(legend, ...cube.kinds.map((kind) => {
      const box = Text.element("input", { type: "checkbox", value: kind });
      box.addEventListener("change", () => view.set({ kinds: cube.kinds.filter((k) => k === kind ? box.checked : view.kinds.includes(k)) }));
      return Text.element("label", { title: Text.meaning(kind) }, box, " ", Text.safe(Text.kind(kind)));
    }));
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
    byId("second").textContent = view.other ? "Change B" : "Compare with …";
    byId("target").hidden = view.target !== "b";
    byId("compare-label").hidden = !view.other;
    byId("heat-title").textContent = `Waits over time, by ${view.axisNow.title}`;
    byId("heatmap").setAttribute("aria-label", `Heatmap of waits: time by ${view.axisNow.title}`);
    byId("flame-title").textContent = (view.stack === "waker" ? "Who woke them" : "Where they waited") + (view.other ? ": B against A" : "");
    byId("blame-title").textContent = "Because of whom" + (view.other ? ", selection A" : "");
    byId("keys-one").hidden = Boolean(view.other);
    byId("keys-two").hidden = !view.other;
    byId("profile-label").hidden = !cube.profiles.length;
    byId("key-ran").hidden = !view.ranShown;
    byId("stack").disabled = !cube.hasStacks;
  }

  function drawFlame(cube, view, flame, stacks, a, b) {
    const note = byId("flame-note");
    const format = view.weight === "time" ? Text.duration : Text.waits;
    note.hidden = cube.hasStacks;
    if (cube.source === "histograms") {
      note.textContent = "This trace has histograms only, no single waits: in place of stacks you see cgroup, kind and policy.";
    } else if (!cube.hasStacks) {
      note.textContent = "This trace has no stacks (record with --stacks both): in their place you see cgroup, thread, kind and policy.";
    }
    if (cube.profiles.length) {
      note.hidden = false;
      note.textContent = view.ranShown ? "Waiting and, from profiles, running: " + cube.profiles.map((p) => Text.short(p.sentence, 200)).join("; ") + "."
        : "Profiles are shown beside the time of all waits only: they do not say when something ran.";
    }
    const length = (cells) => (cells.x1 - cells.x0 + 1) * cube.bin_ns / 1e9;
    const tree = FlameTree.of(cube, stacks, view, a, b, b && { a: length(view.cells), b: length(view.other) });
    flame.scaleName = view.compare === "rate" ? "per second" : "share";
    flame.show(tree, format);
    Object.assign(byId("flame").dataset, { value: tree.root.a, other: tree.root.b });
    const list = () => byId("flame-table").lastElementChild.replaceChildren(Table.make("", heads(tree), tree.functions().map((f) => cells(tree, f, format))));
    byId("flame-table").ontoggle = () => { if (byId("flame-table").open) list(); };
    if (byId("flame-table").open) list();
  }

  const heads = (tree) => tree.two ? ["frame", "A", "B", "share of A", "share of B"] : ["frame", "ends here", "in all", "share"];
  const cells = (tree, f, format) => tree.two
    ? [Text.name(f.name, 80), format(f.a), format(f.b), Text.percent(f.a, tree.root.a), Text.percent(f.b, tree.root.b)]
    : [Text.name(f.name, 80), format(f.self), format(f.a), Text.percent(f.a, tree.root.a)];

  try {
    const cube = new Cube(await Decode.data());
    const exact = cube.served && cube.exact ? new Exact(cube) : null;
    if (exact) await exact.begin();
    const view = new View(cube, Axes.all(cube));
    let stacks = FlameTree.stacks(cube);
    const heatmap = new Heatmap(byId("heatmap"), cube, view, Tip);
    const flame = new Flame(byId("flame"), Tip, byId("flame-status"));
    const traces = new Traces(byId("traces"), cube, view, Tip);
    byId("traces-panel").hidden = !cube.traces.length;
    Facts.draw(cube);
    byId("loss-help").hidden = !cube.losses.length;
    Diagnosis.draw(cube, view);
    controls(cube, view, flame);
    let shown = null;
    const draw = async () => {
      settings(cube, view);
      const key = view.hash();
      if (key !== shown) {
        shown = key;
        const a = view.rows(view.cells);
        const b = view.other && view.rows(view.other);
        Figures.draw(cube, view, a, b);
        drawFlame(cube, view, flame, stacks, a, b);
        Blame.draw(cube, view, Tip);
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
        stacks = FlameTree.stacks(cube);
        traces.renew();
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
