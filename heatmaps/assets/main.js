"use strict";
// Wires data, view, controls and drawings together.
(async () => {
  const byId = (id) => document.getElementById(id);
  const TITLES = { latency: "latency", cpu: "CPU", cgroup: "cgroup", policy: "policy", kind: "kind of wait" };

  function controls(cube, view, flame) {
    for (const name of Object.keys(view.axes)) byId("axis").append(new Option(TITLES[name], name));
    const legend = byId("kinds").firstElementChild;
    byId("kinds").replaceChildren(legend, ...cube.kinds.map((kind) => {
      const box = Text.element("input", { type: "checkbox", value: kind });
      box.addEventListener("change", () => view.set({ kinds: cube.kinds.filter((k) => k === kind ? box.checked : view.kinds.includes(k)) }));
      return Text.element("label", {}, box, " ", Text.safe(kind));
    }));
    for (const name of ["axis", "measure", "scale", "stack", "weight"]) {
      byId(name).addEventListener("change", (event) => view.set({ [name]: event.target.value }));
    }
    byId("clear").addEventListener("click", () => view.set({ cells: null, cursor: null }));
    byId("search").addEventListener("input", (event) => flame.search(event.target.value));
    byId("unzoom").addEventListener("click", () => flame.zoom(flame.root));
    flame.onZoom = (zoomed) => { byId("unzoom").disabled = !zoomed; };
  }

  function settings(view) {
    for (const name of ["axis", "measure", "scale", "stack", "weight"]) byId(name).value = view[name];
    for (const box of byId("kinds").querySelectorAll("input")) box.checked = view.kinds.includes(box.value);
    byId("clear").disabled = !view.cells;
    byId("heatmap").setAttribute("aria-label", `Heatmap of waits: time by ${TITLES[view.axis]}`);
  }

  function drawFlame(cube, view, flame, rows) {
    const note = byId("flame-note");
    const format = view.weight === "time" ? Text.duration : (n) => Text.number(n) + " waits";
    note.hidden = cube.hasStacks;
    if (cube.source === "histograms") {
      note.textContent = "This trace has histograms only, no single waits: in place of stacks you see cgroup, kind and policy.";
    } else if (!cube.hasStacks) {
      note.textContent = "This trace has no stacks (record with --stacks both): in their place you see cgroup, kind and policy.";
    }
    byId("stack").disabled = !cube.hasStacks;
    const tree = cube.hasStacks
      ? FlameTree.fromStacks(cube, rows, view.stack, view.weight) : FlameTree.fromGroups(cube, rows, view.weight);
    flame.show(tree, format);
    byId("flame").dataset.value = tree.value;
    const whole = tree.value;
    const list = () => byId("flame-table").lastElementChild.replaceChildren(Figures.table("", ["frame", "ends here", "in all", "share"],
      FlameTree.functions(tree).map((f) => [Text.name(f.name, 80), format(f.self), format(f.total), Text.percent(f.total, whole)])));
    byId("flame-table").ontoggle = list;
    if (byId("flame-table").open) list();
  }

  try {
    const cube = new Cube(await Decode.data());
    const view = new View(cube, Axes.all(cube));
    const heatmap = new Heatmap(byId("heatmap"), cube, view, Tip);
    const flame = new Flame(byId("flame"), Tip, byId("flame-status"));
    Facts.draw(cube);
    byId("loss-help").hidden = !cube.losses.length;
    controls(cube, view, flame);
    let shown = null;
    const draw = async () => {
      settings(view);
      const key = view.hash();
      if (key !== shown) {
        shown = key;
        const rows = view.rows();
        Figures.draw(cube, view, rows);
        drawFlame(cube, view, flame, rows);
      }
      await heatmap.draw();
    };
    view.onChange(draw);
    Theme.attach(byId("theme"), draw);
    await draw();
    Keyboard.attach(byId("heatmap"), heatmap, view, byId("heat-status"));
  } catch (error) {
    byId("failure").hidden = false;
    byId("failure").textContent = "This report cannot be shown: " + error.message;
    throw error;
  } finally {
    byId("main").setAttribute("aria-busy", "false");
  }
})();
