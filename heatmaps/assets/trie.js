"use strict";
// Stacks as a prefix tree in typed arrays. Node 0 is the root, a parent's number is below its
// children's, so sums go up in one pass from the end.
class Trie {
  // frame: of each node, an index into names and kinds; ends: the node at which each stack ends.
  constructor(parent, frame, ends, names, kinds) {
    Object.assign(this, { parent, frame, ends, names, kinds, size: parent.length });
    const start = this.start = new Uint32Array(this.size + 1);
    for (let n = 1; n < this.size; n++) start[parent[n] + 1]++;
    for (let n = 0; n < this.size; n++) start[n + 1] += start[n];
    const next = start.slice();
    this.list = new Uint32Array(Math.max(0, this.size - 1));
    for (let n = 1; n < this.size; n++) this.list[next[parent[n]]++] = n;
  }

  static fromPage(data) {
    const { back, frame, stacks } = Decode.group(data.columns, "trie");
    return new Trie(Uint32Array.from(back, (b, n) => n - b), frame, stacks, data.frames, data.frame_kinds);
  }

  // paths: iterables of indices into names, the root's first.
  static fromPaths(paths, names, kinds) {
    const parent = [0];
    const frame = [0];
    const ends = [];
    const known = new Map();
    for (const path of paths) {
      let at = 0;
      for (const f of path) {
        const key = at * names.length + f;
        let node = known.get(key);
        if (node === undefined) {
          known.set(key, node = parent.length);
          parent.push(at);
          frame.push(f);
        }
        at = node;
      }
      ends.push(at);
    }
    return new Trie(Uint32Array.from(parent), Uint32Array.from(frame), Uint32Array.from(ends), names, kinds);
  }

  // Frames of the stack that ends at a node, the innermost first.
  pathUp(node) {
    const out = [];
    for (let n = node; n; n = this.parent[n]) out.push(this.frame[n]);
    return out;
  }

  // The same stacks, innermost frame first: built once, when somebody asks.
  get inverted() {
    if (!this.mirror) this.mirror = Trie.fromPaths(Array.from(this.ends, (end) => this.pathUp(end)), this.names, this.kinds);
    return this.mirror;
  }

  children(node) {
    return this.list.subarray(this.start[node], this.start[node + 1]);
  }

  // Adds up values by stack to values by node, those below it included; `self` keeps what ends there.
  sums(byStack) {
    const self = new Float64Array(this.size);
    for (let s = 0; s < byStack.length; s++) if (byStack[s]) self[this.ends[s]] += byStack[s];
    const value = self.slice();
    for (let n = this.size - 1; n > 0; n--) value[this.parent[n]] += value[n];
    return { self, value };
  }
}
