"use strict";
// The waits of one trace or goroutine in order: a lane each, and arrows from who ended a wait.
const ChainPath = (() => {
  const [LABEL, LABEL_OF_SEVERAL, LABEL_OF_NTH, ROW, TOP, MAX_LANES, MAX_BARS] = [130, 210, 280, 24, 24, 40, 2000];

  // A goroutine by its process, and which program that was, as those of two have the same numbers;
  // what ended a wait is of the same.
  const keyOf = (step, goid = step.goid) => `${step.pid}/${step.nth}/${goid}`;
  const nameOf = ({ pid, nth, goid }, several) => `goroutine ${goid}` + (several ? ` of pid ${pid}` : "") + (several && nth ? `, program ${nth}` : "");

  // Goroutines in the order in which they come up, those that only made others go on too.
  function lanes(steps) {
    const found = new Map();
    for (const step of steps) {
      for (const goid of [step.waker_goid, step.goid]) {
        const key = keyOf(step, goid);
        if (goid && !found.has(key) && found.size < MAX_LANES) found.set(key, { row: found.size, pid: step.pid, nth: step.nth, goid });
      }
    }
    return found;
  }

  function draw(node, room, steps, several) {
    const drawn = steps.slice(0, MAX_BARS);
    const rows = lanes(drawn);
    const begin = Math.min(...drawn.map((s) => s.from));
    const span = Math.max(1, Math.max(...drawn.map((s) => s.to)) - begin);
    const width = Math.max(480, room - 4);
    const label = !several ? LABEL : drawn.some((s) => s.nth) ? LABEL_OF_NTH : LABEL_OF_SEVERAL;
    const x = (ns) => label + (width - label - 12) * (ns - begin) / span;
    const y = (key) => TOP + rows.get(key).row * ROW;
    const svg = Text.svg("svg", { width, height: TOP + ROW * rows.size + 6, viewBox: `0 0 ${width} ${TOP + ROW * rows.size + 6}`, class: "timeline", role: "img",
      "aria-label": "Waits by goroutine, with arrows from who ended them; the table below has the numbers" });
    for (let i = 0; i <= 4; i++) {
      const at = x(begin + span * i / 4);
      svg.append(Text.svg("line", { x1: at, x2: at, y1: TOP - 4, y2: TOP + ROW * rows.size, class: "grid" }),
        Text.svg("text", { x: at, y: 12, "text-anchor": i === 4 ? "end" : "middle", class: "side" }, Text.duration(span * i / 4)));
    }
    for (const [key, lane] of rows) {
      svg.append(Text.svg("text", { x: label - 8, y: y(key) + ROW / 2 + 4, "text-anchor": "end" }, nameOf(lane, several)),
        Text.svg("rect", { x: label, y: y(key) + ROW / 2 - 1, width: width - label - 12, height: 1, class: "lane" }));
    }
    for (const step of drawn) {
      if (rows.has(keyOf(step))) svg.append(bar(step, begin, x, y, several));
    }
    for (const step of drawn) {
      const waker = keyOf(step, step.waker_goid);
      if (step.parked && rows.has(keyOf(step)) && rows.has(waker)) svg.append(arrow(x(step.to), y(waker) + ROW / 2, y(keyOf(step)) + ROW / 2));
    }
    const hidden = steps.length - drawn.length;
    const note = [hidden && `The last ${Text.number(hidden)} waits are only in the table.`, rows.size === MAX_LANES && `Of more than ${MAX_LANES - 1} goroutines, the first.`];
    node.replaceChildren(svg, Text.element("p", { class: "help" }, note.filter(Boolean).join(" ")));
  }

  function bar(step, begin, x, y, several) {
    const node = Text.svg("rect", { x: x(step.from), y: y(keyOf(step)) + 4, width: Math.max(1, x(step.to) - x(step.from)), height: ROW - 8,
      class: "wait " + (step.parked ? "blocked" : "goroutine"), "data-ns": step.to - step.from });
    return Tip.over(node, [
      `${nameOf(step, several)} in ${Text.inline(step.where, 80)}`,
      `${step.parked ? Text.inline(step.words) : "waits for a P"}, for ${Text.duration(step.to - step.from)}, ${Text.duration(step.from - begin)} after the first wait began`,
      ...(step.parked ? ["made to go on by " + Text.inline(step.waker, 80)] : []),
    ]);
  }

  function arrow(at, from, to) {
    const tip = to > from ? -5 : 5;
    return Text.svg("path", { d: `M${at},${from}V${to}m-3,${tip}l3,${-tip}l3,${tip}`, class: "arrow" });
  }

  return { draw, nameOf };
})();
