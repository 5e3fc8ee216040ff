"use strict";
// Folds the selected waits into a tree of frames.
const FlameTree = (() => {
  const NO_STACK = "[no stack recorded]";

  const node = (name, kind, depth, parent) =>
    ({ name, kind, depth, parent, value: 0, self: 0, children: new Map() });

  // which: victim or waker; weight: time or count.
  function fromStacks(cube, rows, which, weight) {
    const ids = cube.row[which === "waker" ? "waker_stack" : "stack"];
    const values = weight === "time" ? cube.row.sum_ns : cube.row.count;
    const byStack = new Map();
    for (const i of rows) byStack.set(ids[i], (byStack.get(ids[i]) || 0) + values[i]);
    const root = node("all", "other", 0, null);
    for (const [id, value] of byStack) {
      const frames = cube.stackOf(id);
      if (!frames.length) add(root, [[NO_STACK, "other"]], value);
      else add(root, Array.from(frames, (f) => [cube.frames[f], cube.frame_kinds[f]]), value);
    }
    return root;
  }

  // Without stacks: the cgroup's path, then kind and policy, take their place.
  function fromGroups(cube, rows, weight) {
    const { cgroup, kind, policy } = cube.row;
    const values = weight === "time" ? cube.row.sum_ns : cube.row.count;
    const sums = new Map();
    for (const i of rows) {
      const key = (cgroup[i] * 256 + kind[i]) * 256 + policy[i];
      sums.set(key, (sums.get(key) || 0) + values[i]);
    }
    const root = node("all", "other", 0, null);
    for (const [key, value] of sums) {
      const path = cube.cgroups[Math.floor(key / 65536)].split("/").filter(Boolean);
      const frames = path.length ? path.map((p) => ["/" + p, "native"]) : [["/", "native"]];
      add(root, [...frames, [cube.kinds[(key >> 8) & 255], "kernel"], [cube.policies[key & 255], "other"]], value);
    }
    return root;
  }

  function add(root, frames, value) {
    let at = root;
    at.value += value;
    for (const [name, kind] of frames) {
      const key = kind + ":" + name;
      let child = at.children.get(key);
      if (!child) at.children.set(key, child = node(name, kind, at.depth + 1, at));
      child.value += value;
      at = child;
    }
    at.self += value;
  }

  // Children, widest first.
  const ordered = (at) => [...at.children.values()].sort((a, b) => b.value - a.value || (a.name < b.name ? -1 : 1));

  // Time by function, counted once per stack it is in.
  function functions(root) {
    const sums = new Map();
    const walk = (at, above) => {
      const key = at.kind + ":" + at.name;
      const fresh = at.parent && !above.has(key);
      if (at.parent) {
        let sum = sums.get(key);
        if (!sum) sums.set(key, sum = { name: at.name, kind: at.kind, self: 0, total: 0 });
        sum.self += at.self;
        if (fresh) { sum.total += at.value; above.add(key); }
      }
      for (const child of at.children.values()) walk(child, above);
      if (fresh) above.delete(key);
    };
    walk(root, new Set());
    return [...sums.values()].sort((a, b) => b.self - a.self || b.total - a.total);
  }

  return { fromStacks, fromGroups, ordered, functions };
})();
