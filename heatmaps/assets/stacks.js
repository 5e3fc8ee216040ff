"use strict";
// Where the flame graph's stacks are from: the cube's waits by who waited or who woke them, the blame
// table by who ran meanwhile, or a profile.
const Stacks = (() => {
  // What stands in for stacks where there are none: cgroup path, thread, kind and policy.
  function standIns(cube) {
    const { cgroup, comm, kind, policy } = cube.row;
    const names = [];
    const kinds = [];
    const index = new Map();
    const frame = (name, kindOf) => {
      const key = kindOf + ":" + name;
      if (!index.has(key)) {
        index.set(key, names.length);
        names.push(name);
        kinds.push(kindOf);
      }
      return index.get(key);
    };
    const stackOf = new Map();
    const paths = [];
    const column = new Uint32Array(cube.length);
    for (let i = 0; i < cube.length; i++) {
      const key = ((cgroup[i] * cube.comms.length + comm[i]) * cube.kinds.length + kind[i]) * cube.policies.length + policy[i];
      let stack = stackOf.get(key);
      if (stack === undefined) {
        stackOf.set(key, stack = paths.length);
        paths.push([
          ...levels(cube.cgroups[cgroup[i]]).map((level) => frame(level, "native")),
          ...(cube.comms[comm[i]] ? [frame(cube.comms[comm[i]], "other")] : []),
          frame(Text.kind(cube.kinds[kind[i]]), "kernel"), frame(cube.policies[policy[i]] || "policy not recorded", "other"),
        ]);
      }
      column[i] = stack;
    }
    return { trie: Trie.fromPaths(paths, names, kinds), columns: { victim: column, waker: column } };
  }

  // Of a cgroup's path: `/a/b`, `HOST:/a/b` of a merged trace, or what stands for several or none.
  function levels(path) {
    const [first, ...parts] = path.split("/");
    const below = parts.filter(Boolean).map((part) => "/" + part);
    if (first) return [first, ...below];
    return below.length ? below : [path || Text.nameless("cgroup")];
  }

  // Tree of frames and which stack each row of the cube has.
  function of(cube) {
    if (!cube.hasStacks) return standIns(cube);
    const trie = Trie.fromPage(cube);
    const { stack, waker_stack } = cube.row;
    return { trie, columns: { victim: stack, waker: waker_stack } };
  }

  // Rows of one or both selections with their stacks and values, and what they can be split by: for
  // each way a key for each row, and the keys' names.
  function source(cube, view, { trie, columns }, a, b) {
    if (view.stack === "culprit") return ofCulprits(cube, view, trie);
    if (view.stack.startsWith("profile-")) return ofProfile(cube, view, trie);
    return {
      trie, a, b, column: columns[view.stack], values: view.counted ? cube.row.count : cube.row.sum_ns,
      splits: { kind: [cube.row.kind, cube.kinds.map(Text.kind)], comm: [cube.row.comm, cube.comms] },
      ran: view.ranShown ? ran(cube, view, Boolean(b)) : null,
    };
  }

  function ofCulprits(cube, view, trie) {
    const { stack, sum_ns, kind, culprit } = cube.blame;
    const threads = Blame.named(cube, "culprits", "comm");
    const [a, b] = [view.cells, view.other].map((cells, i) => (i && !cells ? null : Blame.rows(cube, view, cells)));
    return {
      trie, a: a.rows, b: b && b.rows, column: stack, values: sum_ns,
      splits: { kind: [kind, cube.kinds.map(Text.kind)], comm: [culprit.map((c) => threads.of[c]), threads.list.map(({ name }) => name)] },
      ran: null, open: a.exact && (!b || b.exact) ? "" : Blame.open(cube, view),
    };
  }

  function ofProfile(cube, view, trie) {
    const which = (p) => p === cube.profiles[view.stack.slice(8)];
    const selected = (cells) => Profiles.selected(cube, view, cells, which);
    const found = [selected(view.cells), view.other && selected(view.other)];
    return {
      trie, a: found[0].rows, b: found[1] && found[1].rows, column: cube.ran.stack, values: cube.ran.value, splits: {}, ran: null, found,
    };
  }

  // Time on the CPU in one or both selections.
  function ran(cube, view, two) {
    const selected = (cells) => Profiles.selected(cube, view, cells, (p) => p.on_cpu);
    return { a: selected(view.cells), b: two ? selected(view.other) : null, column: cube.ran.stack, values: cube.ran.value };
  }

  return { of, source };
})();
