"use strict";
// The selected waits as a tree of frames, or two selections as one tree with both in every frame.
// Nodes are made when they are drawn: a tree of 100,000 stacks costs what is seen of it.
const FlameTree = (() => {
  const NO_STACK = "[no stack recorded]";
  const MAX_GROUPS = 40;

  class Node {
    constructor(tree, group, id, parent, name, kind) {
      Object.assign(this, { tree, group, id, parent, name, kind, depth: parent ? parent.depth + 1 : 0 });
      this.key = kind + ":" + name;
      const { a, b } = group;
      this.a = a.value[id];
      this.self = a.self[id];
      this.b = b ? b.value[id] : 0;
      // In a split the time on the CPU is a group of its own.
      const told = tree.ran && (!tree.split || !parent);
      this.ran = told ? tree.ran.a.value[id] : 0;
      this.ranB = told && b ? tree.ran.b.value[id] : 0;
      this.width = tree.width(this.a, this.b);
    }

    get children() {
      if (!this.below) this.below = this.tree.childrenOf(this).sort((x, y) => y.width - x.width || (x.name < y.name ? -1 : 1));
      return this.below;
    }
  }

  class Tree {
    // groups: [{ name, kind, a, b }], sums of a trie for both selections; b is null for one only.
    // scale: what a unit of width is in each selection.
    // ran: of each node the part of it that a profile saw on the CPU, for both selections; null
    // without one.
    // inverted: the innermost frames are at the root.
    constructor(trie, groups, split, scale, ran, inverted) {
      Object.assign(this, { trie, groups, split, scale, ran, inverted, two: groups.length > 0 && groups[0].b !== null });
      this.width = this.two ? (a, b) => (a * scale.a + b * scale.b) / 2 : (a) => a;
      const whole = (of) => ({ value: [groups.reduce((sum, g) => sum + of(g).value[0], 0)], self: [0] });
      const sums = split ? { a: whole((g) => g.a), b: this.two ? whole((g) => g.b) : null } : groups[0];
      this.root = new Node(this, sums, 0, null, "all", "other");
    }

    childrenOf(node) {
      if (this.split && !node.parent) {
        return this.groups.filter((g) => this.width(g.a.value[0], g.b ? g.b.value[0] : 0) > 0)
          .map((g) => new Node(this, g, 0, node, g.name, g.kind));
      }
      const out = [];
      const { trie } = this;
      const { a, b } = node.group;
      for (const id of trie.children(node.id)) {
        if (a.value[id] > 0 || (b && b.value[id] > 0)) {
          const f = trie.frame[id];
          out.push(new Node(this, node.group, id, node, trie.names[f], trie.kinds[f]));
        }
      }
      // What has no frames at all is said, not left blank.
      const bare = { self: [a.self[0]], value: [a.self[0]] };
      const bareB = b && { self: [b.self[0]], value: [b.self[0]] };
      if (node.id === 0 && !node.bare && (bare.value[0] > 0 || (bareB && bareB.value[0] > 0))) {
        const none = new Node(this, { a: bare, b: bareB }, 0, node, NO_STACK, "other");
        none.bare = true;
        const told = this.ran && !this.split;
        none.ran = told ? this.ran.a.self[0] : 0;
        none.ranB = told && b ? this.ran.b.self[0] : 0;
        none.below = [];
        out.push(none);
      }
      return out;
    }

    // Children that are not told apart, as one.
    together(parent, children) {
      if (parent.narrow && parent.narrow.children.length === children.length) return parent.narrow;
      const sum = (field) => children.reduce((all, child) => all + child[field], 0);
      const name = `${Text.number(children.length)} narrower frame${children.length === 1 ? "" : "s"}`;
      const sums = Object.fromEntries(["a", "b", "ran", "ranB", "width"].map((field) => [field, sum(field)]));
      parent.narrow = { ...sums, name, kind: "other", self: 0, parent, children, together: true };
      return parent.narrow;
    }

    // Width of what is in or below a frame that matches, and its parts.
    matched(matches) {
      const { trie } = this;
      const hit = Uint8Array.from(trie.names, (n) => (matches(n) ? 1 : 0));
      const inside = new Uint8Array(trie.size);
      let [a, b] = [0, 0];
      for (const group of this.groups) {
        if (this.split && matches(group.name)) {
          a += group.a.value[0];
          b += group.b ? group.b.value[0] : 0;
          continue;
        }
        for (let n = 1; n < trie.size; n++) {
          const above = inside[trie.parent[n]];
          const here = hit[trie.frame[n]];
          inside[n] = above || here;
          if (here && !above) {
            a += group.a.value[n];
            if (group.b) b += group.b.value[n];
          }
        }
        if (matches(NO_STACK)) {
          a += group.a.self[0];
          if (group.b) b += group.b.self[0];
        }
      }
      return { a, b, width: this.width(a, b) };
    }

    // By function, counted once per stack it is in: self and total of both selections, and what of
    // the totals ran.
    functions() {
      const { trie } = this;
      const again = repeated(trie);
      const size = trie.names.length;
      const sums = Object.fromEntries(["self", "a", "b", "ran", "ranB"].map((name) => [name, new Float64Array(size)]));
      let bare = 0;
      let bareB = 0;
      for (const { a, b } of this.groups) {
        bare += a.self[0];
        if (b) bareB += b.self[0];
        for (let n = 1; n < trie.size; n++) {
          const f = trie.frame[n];
          // Where a stack ends in an inverted tree is where it began.
          sums.self[f] += !this.inverted ? a.self[n] : trie.parent[n] ? 0 : a.value[n];
          if (again[n]) continue;
          sums.a[f] += a.value[n];
          if (b) sums.b[f] += b.value[n];
        }
      }
      for (let n = 1; this.ran && n < trie.size; n++) {
        if (again[n]) continue;
        sums.ran[trie.frame[n]] += this.ran.a.value[n];
        if (this.ran.b) sums.ranB[trie.frame[n]] += this.ran.b.value[n];
      }
      const out = trie.names.map((name, f) => ({ name, kind: trie.kinds[f], self: sums.self[f], a: sums.a[f], b: sums.b[f], ran: sums.ran[f], ranB: sums.ranB[f] }));
      const [ran, ranB] = this.ran ? [this.ran.a.self[0], this.ran.b ? this.ran.b.self[0] : 0] : [0, 0];
      out.push({ name: NO_STACK, kind: "other", self: bare, a: bare, b: bareB, ran, ranB });
      const change = (f) => Math.abs(f.b * this.scale.b - f.a * this.scale.a);
      return out.filter((f) => f.a || f.b).sort(this.two ? (x, y) => change(y) - change(x) : (x, y) => y.self - x.self || y.a - x.a);
    }
  }

  // Of each node whether its frame is above it already.
  function repeated(trie) {
    if (trie.again) return trie.again;
    trie.again = new Uint8Array(trie.size);
    for (let n = 1; n < trie.size; n++) {
      for (let at = trie.parent[n]; at; at = trie.parent[at]) {
        if (trie.frame[at] === trie.frame[n]) {
          trie.again[n] = 1;
          break;
        }
      }
    }
    return trie.again;
  }

  // Values by stack; with a grouping one array for each of its groups.
  function byStack(rows, { column, values, trie }, groupOf, groups) {
    const out = Array.from({ length: groups }, () => new Float64Array(trie.ends.length));
    for (let j = 0; j < rows.length; j++) {
      const i = rows[j];
      out[groupOf ? groupOf[i] : 0][column[i]] += values[i];
    }
    return out;
  }

  const added = (x, y) => x.map((v, i) => v + y[i]);

  // source: rows, stacks and values, from Stacks. seconds: how long each of two selections is.
  function of(source, view, seconds) {
    const { trie, a, b } = source;
    const shape = view.order === "leaf" ? trie.inverted : trie;
    const split = source.splits[view.split];
    const { groupOf, names } = split ? grouping(source, ...split) : { groupOf: null, names: [""] };
    const [ranA, ranB] = [source.ran && ranBy(source.ran, trie, source.ran.a), source.ran && b && ranBy(source.ran, trie, source.ran.b)];
    const sums = (rows, ran) => {
      const lists = byStack(rows, source, groupOf, names.length);
      if (ran && groupOf) lists.push(ran);
      else if (ran) lists[0] = added(lists[0], ran);
      return lists.map((s) => shape.sums(s));
    };
    const [sumsA, sumsB] = [sums(a, ranA), b && sums(b, ranB)];
    if (ranA && groupOf) names.push("on CPU (profile)");
    const groups = names.map((name, g) => ({ name, kind: "other", a: sumsA[g], b: b && sumsB[g] }));
    const total = (list) => list.reduce((sum, s) => sum + s.value[0], 0);
    const scale = !b ? { a: 1, b: 0 } : view.compare === "rate" ? { a: 1 / seconds.a, b: 1 / seconds.b }
      : { a: 1 / (total(sumsA) || 1), b: 1 / (total(sumsB) || 1) };
    return new Tree(shape, groups, Boolean(split), scale, ranA && { a: shape.sums(ranA), b: ranB && shape.sums(ranB) }, shape !== trie);
  }

  const ranBy = ({ column, values }, trie, { rows }) => byStack(rows, { trie, column, values }, null, 1)[0];

  // The keys with the most as groups, the others as one: a number for each row.
  function grouping({ a, b, values }, keys, names) {
    const sums = new Float64Array(names.length);
    for (const rows of b ? [a, b] : [a]) {
      for (let j = 0; j < rows.length; j++) sums[keys[rows[j]]] += values[rows[j]];
    }
    const order = [...sums.keys()].filter((key) => sums[key] > 0 && names[key] !== Text.REST).sort((x, y) => sums[y] - sums[x]);
    const together = sums.some((sum, key) => sum > 0 && names[key] === Text.REST);
    const top = order.slice(0, MAX_GROUPS - 1);
    const place = new Uint16Array(names.length).fill(top.length);
    top.forEach((key, i) => { place[key] = i; });
    const found = top.map((key) => names[key] || "unknown");
    if (together || order.length > top.length || !found.length) found.push(Text.REST);
    return { groupOf: Uint16Array.from(keys, (key) => place[key]), names: found };
  }

  return { of };
})();
