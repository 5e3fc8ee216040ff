"use strict";
// Chains summed over time: where goroutines were parked, why, and who made them go on, as three
// columns of boxes as high as the time, with bands between them.
const ChainGraph = (() => {
  const TOP = 10;
  const [NARROWEST, WIDEST, HEIGHT, GAP, BOX, LABEL] = [300, 1160, 420, 7, 12, 250];
  // A letter is about so wide.
  const LETTER = 7;
  const COLUMNS = [["where", "parked in"], ["words", "why"], ["waker", "made to go on by"]];

  // Boxes of one column, most time first, the rest as one; and the box of each link.
  function boxes(links, field) {
    const sums = new Map();
    for (const link of links) sums.set(link[field], (sums.get(link[field]) || 0) + link.blocked);
    const order = [...sums].sort((a, b) => b[1] - a[1]);
    const kept = order.slice(0, order.length > TOP + 1 ? TOP : order.length);
    const list = kept.map(([name, ns]) => ({ name, ns, from: 0, to: 0 }));
    const rest = order.slice(kept.length);
    if (rest.length) list.push({ name: Text.rest(rest.length), ns: rest.reduce((sum, [, ns]) => sum + ns, 0), from: 0, to: 0 });
    const index = new Map(kept.map(([name], i) => [name, i]));
    return { list, of: (link) => list[index.has(link[field]) ? index.get(link[field]) : list.length - 1] };
  }

  // As wide as its place, so that its words are as large as all others.
  function measures(room) {
    const width = Math.max(NARROWEST, Math.min(WIDEST, room));
    const label = Math.min(LABEL, Math.floor(width / 4.6));
    const step = (width - 2 * label - BOX) / 2;
    return { width, step, left: (i) => label + i * step, letters: (i) => Math.floor((i === 1 ? step - BOX : label - 6) / LETTER) };
  }

  function place(column, total, most, x) {
    const tall = HEIGHT - 24 - GAP * (most - 1);
    let y = 22;
    for (const box of column.list) {
      Object.assign(box, { y, h: tall * box.ns / total, x });
      y += box.h + GAP;
    }
  }

  function draw(links, room) {
    const parked = links.filter((link) => link.blocked > 0);
    const total = parked.reduce((sum, link) => sum + link.blocked, 0);
    if (!total) return Text.element("p", { class: "help" }, "Nobody was seen parked: that needs a recording with --go-level 2 or 3.");
    const size = measures(room);
    const svg = Text.svg("svg", { viewBox: `0 0 ${size.width} ${HEIGHT + 10}`, class: "sankey chain", role: "img", "data-ns": total,
      "aria-label": "Where goroutines were parked (left), why (middle), and who made them go on (right); the table has the numbers" });
    const columns = COLUMNS.map(([field]) => boxes(parked, field));
    const most = Math.max(...columns.map((column) => column.list.length));
    columns.forEach((column, i) => place(column, total, most, size.left(i)));
    for (const i of [0, 1]) bands(svg, parked, columns[i], columns[i + 1], total, i);
    columns.forEach((column, i) => {
      let free = 0;
      const form = Text.shorts(column.list.map((box) => box.name), size.letters(i));
      column.list.forEach((box, j) => { free = label(svg, box, i, j, total, free, form(box.name)); });
    });
    COLUMNS.forEach(([, title], i) => svg.append(Text.svg("text", { x: size.left(i) + BOX / 2, y: 12, "text-anchor": "middle", class: "side" }, title)));
    return svg;
  }

  // One band for all links between the same two boxes, in the order of the boxes.
  function bands(svg, links, left, right, total, i) {
    const sums = new Map();
    for (const link of links) {
      const key = left.list.indexOf(left.of(link)) * 64 + right.list.indexOf(right.of(link));
      const sum = sums.get(key) || { ns: 0, count: 0 };
      sums.set(key, { ns: sum.ns + link.blocked, count: sum.count + link.count });
    }
    for (const [key, { ns, count }] of [...sums].sort((a, b) => a[0] - b[0])) {
      const [a, b] = [left.list[Math.floor(key / 64)], right.list[key % 64]];
      const [h, x0, x1] = [a.h * ns / a.ns, a.x + BOX, b.x];
      const [y0, y1, middle] = [a.y + a.to, b.y + b.from, (a.x + BOX + b.x) / 2];
      a.to += h;
      b.from += h;
      const d = `M${x0},${y0}C${middle},${y0} ${middle},${y1} ${x1},${y1}v${h}C${middle},${y1 + h} ${middle},${y0 + h} ${x0},${y0 + h}Z`;
      const colour = (i ? right.list.indexOf(b) : left.list.indexOf(a)) % 8;
      svg.append(Tip.over(Text.svg("path", { d, class: "band c" + colour, "data-from": i, "data-ns": ns }), [
        `${Text.inline(a.name, 80)}: ${Text.inline(b.name, 80)}`,
        `parked for ${Text.duration(ns)}, ${Text.percent(ns, total)} of it all, ${Text.waits(count)}`,
      ]));
    }
  }

  // Names a box where there is room from `free` on; where there is room after it.
  function label(svg, box, i, j, total, free, words) {
    const node = Text.svg("rect", { x: box.x, y: box.y, width: BOX, height: Math.max(1, box.h), class: "box " + (i === 1 ? "victim" : "c" + j % 8) });
    svg.append(Tip.over(node, [Text.short(box.name, 200), `parked for ${Text.duration(box.ns)}, ${Text.percent(box.ns, total)}`]));
    const middle = box.y + box.h / 2;
    if (middle < free) return free;
    const [x, anchor] = i === 0 ? [box.x - 6, "end"] : [box.x + BOX + 6, "start"];
    svg.append(Text.svg("text", { x, y: middle + 4, "text-anchor": anchor }, words));
    return middle + 13;
  }

  return { draw };
})();
