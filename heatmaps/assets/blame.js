"use strict";
// Who waited for whom: a matrix of victims by culprits, and the same as a Sankey diagram. Every
// nanosecond of run-queue wait and of throttling in the selection is in exactly one cell.
const Blame = (() => {
  const el = Text.element;
  const TOP = 8;
  const HEIGHT = 300;
  const GAP = 6;
  const BOX = 10;
  const LINE = 12;
  const FIELD = { cgroup: 1, comm: 2, process: 3 };
  const WHAT = { idle: "idle CPU", others: "other tasks", unknown: "not known", rest: Text.REST };

  // What ran beside a wait's culprit and was of the same cgroup: which threads is not known.
  const besideCulprit = ([what, cgroup]) => what === "others" && Boolean(cgroup);

  // How a party is called, and whether by words of this page: a thread may be named like those.
  function called(party, by) {
    const [what, cgroup] = party;
    if (what === "quota") return { name: "quota of " + (cgroup || "its cgroup"), own: true };
    if (by === "cgroup" && besideCulprit(party)) return { name: cgroup, own: false };
    const name = WHAT[what] ? "" : party[FIELD[by]];
    return { name: name || WHAT[what] || (name === null ? Text.REST : "unknown"), own: !name };
  }

  const isRest = ({ name, own }) => own && name === Text.REST;

  // Numbers of the rows of the blame table in a selection; exact tells whether all axes of the
  // selection are known here: what is not, is left open.
  function rows(cube, view, cells) {
    const { t, kind } = cube.blame;
    const { axisNow: axis, kindsOn } = view;
    const on = Uint8Array.from(cube.kinds, (k) => kindsOn.has(k));
    const timed = !cube.blame_coarse.includes("t");
    const rowwise = cells && (cells.y0 > 0 || cells.y1 < axis.size - 1) ? axis.blame : null;
    const exact = !cells || (timed && (!rowwise ? cells.y0 <= 0 && cells.y1 >= axis.size - 1 : rowwise.whole(cells.y0, cells.y1)));
    const out = new Uint32Array(t.length);
    let n = 0;
    for (let i = 0; i < t.length; i++) {
      if (!on[kind[i]]) continue;
      if (cells && timed && (t[i] < cells.x0 || t[i] > cells.x1)) continue;
      if (rowwise) {
        const y = rowwise.place[rowwise.column[i]];
        if (y < cells.y0 || y > cells.y1) continue;
      }
      out[n++] = i;
    }
    return { rows: out.slice(0, n), exact };
  }

  // Sums of a selection by victim and culprit, which are places in the lists of names: of the cells
  // that have any, as there may be thousands of either.
  function sums(cube, view, cells) {
    const { victim, culprit, count, sum_ns } = cube.blame;
    const found = rows(cube, view, cells);
    const names = { victim: named(cube, "victims", view.blame), culprit: named(cube, "culprits", view.blame) };
    const width = names.culprit.list.length;
    const those = new Map();
    // By cgroup these waits are in their culprit's cell already.
    const counts = cube.culprits.map((c) => (view.blame === "cgroup" && besideCulprit(c) ? 0 : 1));
    for (const i of found.rows) {
      const [v, c] = [names.victim.of[victim[i]], names.culprit.of[culprit[i]]];
      const key = v * width + c;
      if (!those.has(key)) those.set(key, { key, victim: v, culprit: c, ns: 0, waits: 0 });
      const cell = those.get(key);
      cell.ns += sum_ns[i];
      cell.waits += count[i] * counts[culprit[i]];
    }
    const sorted = [...those.values()].sort((one, other) => one.key - other.key);
    const total = sorted.reduce((sum, cell) => sum + cell.ns, 0);
    return { victims: names.victim.list, culprits: names.culprit.list, cells: sorted, total, exact: found.exact };
  }

  // Grouped once: there are thousands. By the list, as another part of the recording brings its own.
  const made = new WeakMap();
  function named(cube, which, by) {
    const parties = cube[which];
    if (!made.has(parties)) made.set(parties, new Map());
    const known = made.get(parties);
    if (!known.has(by)) known.set(by, groups(parties, by));
    return known.get(by);
  }

  // Parties that are called the same are one.
  function groups(parties, by) {
    const index = new Map();
    const list = [];
    const of = parties.map((p) => {
      const party = called(p, by);
      const key = `${party.own} ${party.name}`;
      if (!index.has(key)) index.set(key, list.push(party) - 1);
      return index.get(key);
    });
    return { of, list };
  }

  // Cells by victim and culprit, each most time first, the rest together.
  function ranked({ victims, culprits, cells: those, total }) {
    const sizes = { victim: new Float64Array(victims.length), culprit: new Float64Array(culprits.length) };
    for (const cell of those) for (const side of ["victim", "culprit"]) sizes[side][cell[side]] += cell.ns;
    const pick = (parties, size) => {
      const order = parties.map((_, i) => i).filter((i) => size[i] > 0).sort((a, b) => size[b] - size[a]);
      // What the page's data has together already, nobody knows how many, is not one of them.
      const [together, named] = [true, false].map((is) => order.filter((i) => isRest(parties[i]) === is));
      const top = named.slice(0, named.length > TOP + 1 ? TOP : named.length);
      const rest = [...named.slice(top.length), ...together];
      const list = top.map((i) => ({ ...parties[i], ns: size[i] }));
      if (rest.length) list.push({ name: Text.rest(together.length ? 0 : rest.length), own: true, ns: rest.reduce((sum, i) => sum + size[i], 0) });
      const place = new Map([...top.map((i, at) => [i, at]), ...rest.map((i) => [i, top.length])]);
      return { list, place };
    };
    const [left, right] = [pick(victims, sizes.victim), pick(culprits, sizes.culprit)];
    const cells = left.list.map(() => right.list.map(() => ({ ns: 0, waits: 0 })));
    for (const { victim, culprit, ns, waits } of those) {
      if (!left.place.has(victim) || !right.place.has(culprit)) continue;
      const cell = cells[left.place.get(victim)][right.place.get(culprit)];
      cell.ns += ns;
      cell.waits += waits;
    }
    return { left: left.list, right: right.list, cells, total };
  }

  function draw(cube, view) {
    const node = document.getElementById("blame-view");
    const note = document.getElementById("blame-note");
    const one = sums(cube, view, view.cells);
    const two = view.other && sums(cube, view, view.other);
    const inexact = [one, two].filter((found) => found && !found.exact);
    node.dataset.total = one.total;
    note.textContent = said(cube, view, !inexact.length);
    note.hidden = !note.textContent;
    node.classList.toggle("two", Boolean(two));
    // What was not kept is not nothing: the note says where it is.
    if (inexact.some(({ total }) => !total)) {
      node.replaceChildren();
      return;
    }
    if (two) {
      node.replaceChildren(compared(cube, view, one, two));
      return;
    }
    if (!one.total) {
      node.replaceChildren(el("p", { class: "help" }, cube.exact ? "No time on a run queue, over a quota or for a GIL here, so nobody is to blame." : ""));
      return;
    }
    const found = ranked(one);
    node.replaceChildren(sankey(found), matrix(found));
  }

  // What must be known beside the numbers, as where they are not those of `sltrace blame`.
  function said(cube, view, exact) {
    if (!cube.exact) return "Histograms do not tell who ran meanwhile.";
    const shown = view.kinds.filter((kind) => cube.kindsThere.has(kind));
    const free = shown.filter((kind) => !cube.held_kinds.includes(kind)).map((kind) => Text.inline(Text.kind(kind)));
    return [
      exact ? "" : open(cube, view),
      shown.includes("gil") ? "With waits for Python's GIL: sltrace blame shows those with --only kind=gil." : "",
      free.length ? `Not in here, because no culprit is recorded for it: ${free.join(", ")}.` : "",
    ].filter(Boolean).join(" ");
  }

  // Who waited for whom in both selections, the largest change first.
  function compared(cube, view, a, b) {
    const list = ({ cells }) => cells.filter(({ ns }) => ns > 0).map(({ key, ns }) => ({ key, ns, name: key }));
    const width = a.culprits.length;
    const [victim, culprit] = [a.victims, a.culprits].map((parties) => heads(parties));
    const lines = Versus.joined(list(a), list(b)).map((s) => ({
      ...s, heads: [victim(a.victims[Math.floor(s.name / width)]), culprit(a.culprits[s.name % width])],
    }));
    return Versus.table("", ["waited", "had it meanwhile"], lines, Versus.measure(view, [a.total, b.total]));
  }

  function open(cube, view) {
    if (cube.blame_coarse.includes("t")) return "Of the whole recording: this trace is too large to keep culprits by time.";
    if (view.axisNow.blame) {
      const { name, unit } = view.axisNow;
      return `The culprits of some ${unit} are not kept here: sltrace blame --only ${name}=… has them.`;
    }
    return `Of all ${view.axisNow.unit} in the selected time: culprits are not kept by ${view.axisNow.title} here.`;
  }

  // Names of parties for a table, in which words of this page look different.
  function heads(parties, length) {
    const form = Text.namer(parties.map((p) => p.name), length);
    return ({ name, own }) => {
      const head = form(name);
      head.classList.toggle("own", own);
      return head;
    };
  }

  function matrix({ left, right, cells, total }) {
    const most = Math.max(...cells.flat().map((c) => c.ns));
    const [victim, culprit] = [heads(left, 24), heads(right, 26)];
    const head = el("tr", {}, el("td", {}), ...right.map((c) => el("th", { scope: "col" }, culprit(c))), el("th", { scope: "col", class: "sum" }, "total"));
    const rows = left.map((v, i) => el("tr", {}, el("th", { scope: "row" }, victim(v)),
      ...cells[i].map((c) => {
        const text = c.ns ? Text.duration(c.ns) : "";
        const cell = el("td", { "data-ns": c.ns, title: c.ns ? `${Text.percent(c.ns, total)} of it all, ${Text.waits(c.waits)}` : null }, text);
        // Part of the darkest, by area: small values stay visible.
        cell.style.setProperty("--heat-part", Math.round(45 * Math.sqrt(c.ns / most)) + "%");
        return cell;
      }), el("td", { class: "sum" }, Text.duration(v.ns))));
    const foot = el("tr", {}, el("th", { scope: "row" }, "total"), ...right.map((c) => el("td", { class: "sum" }, Text.duration(c.ns))),
      el("td", { class: "sum" }, Text.duration(total)));
    const caption = el("caption", {}, "Rows waited, columns had the CPU, the quota or the GIL meanwhile");
    return el("div", { class: "table matrix", tabindex: "0", role: "region", "aria-label": "Victims by culprits" },
      el("table", {}, caption, el("thead", {}, head), el("tbody", {}, ...rows, foot)));
  }

  // Boxes on both sides as high as their time, bands between them.
  function sankey({ left, right, cells, total }) {
    const width = 560;
    const label = 170;
    const svg = Text.svg("svg", { class: "sankey", role: "img", "aria-label": "Who waited (left) for whom (right); the table has the numbers" });
    const tall = HEIGHT - 20 - GAP * (Math.max(left.length, right.length) - 1);
    const places = (parties) => {
      let y = 18;
      return parties.map((p) => {
        const place = { y, h: tall * p.ns / total, used: 0 };
        y += place.h + GAP;
        return place;
      });
    };
    const [from, to] = [places(left), places(right)];
    const [x0, x1] = [label + BOX, width - label - BOX];
    const middle = (x0 + x1) / 2;
    cells.forEach((row, i) => row.forEach((cell, j) => {
      if (!cell.ns) return;
      const h = tall * cell.ns / total;
      const [a, b] = [from[i].y + from[i].used, to[j].y + to[j].used];
      from[i].used += h;
      to[j].used += h;
      const band = Text.svg("path", {
        d: `M${x0},${a}C${middle},${a} ${middle},${b} ${x1},${b}v${h}C${middle},${b + h} ${middle},${a + h} ${x0},${a + h}Z`,
        class: "band c" + (j % 8),
      });
      svg.append(Tip.over(band, [
        `${Text.inline(left[i].name, 80)} waited for ${Text.inline(right[j].name, 80)}`,
        `${Text.duration(cell.ns)}, ${Text.percent(cell.ns, total)}, ${Text.waits(cell.waits)}`,
      ]));
    }));
    let bottom = HEIGHT;
    const form = Text.shorts([...left, ...right].map((p) => p.name), 24);
    const side = (parties, spots, x, anchor, at, dark) => parties.reduce((above, p, i) => {
      svg.append(Text.svg("rect", { x, y: spots[i].y, width: BOX, height: Math.max(1, spots[i].h), class: "box " + dark(i) }));
      if (spots[i].h < 7 && i > 3) return above;
      const y = Math.max(spots[i].y + spots[i].h / 2 + 4, above + LINE);
      svg.append(Text.svg("text", { x: at, y, "text-anchor": anchor, class: p.own ? "own" : "" }, form(p.name)));
      bottom = Math.max(bottom, y + 4);
      return y;
    }, 0);
    side(left, from, label, "end", label - 5, () => "victim");
    side(right, to, x1, "start", x1 + BOX + 5, (i) => "c" + (i % 8));
    for (const [x, anchor, text] of [[label + BOX, "end", "waited"], [x1, "start", "had it meanwhile"]]) {
      svg.append(Text.svg("text", { x, y: 10, "text-anchor": anchor, class: "side" }, text));
    }
    svg.setAttribute("viewBox", `0 0 ${width} ${bottom}`);
    return svg;
  }

  return { draw, rows, named, open };
})();
