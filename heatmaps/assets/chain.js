"use strict";
// The page of blocking chains: what is in it, from the one JSON block.
(() => {
  const el = Text.element;
  const at = (id) => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);

  const NOBODY = "-";
  // Pixels that paper is wide, about.
  const PAPER = 680;

  // A function over what is known of the wait in it.
  function place(link, more, waker) {
    const parts = [Text.inline(link.words), ...(waker === NOBODY ? [] : [["by ", Text.name(waker, 80)]]), ...(link.costs ? ["costs " + link.costs] : []), more];
    return el("div", {}, Text.name(link.where, 80), el("div", { class: "help" }, ...parts.flatMap((part, i) => (i ? [" · "] : []).concat(part))));
  }

  const about = data.subject || "blocking chains";
  at("subject").textContent = Text.short(about, 80);
  at("recorded").textContent = [data.host, data.name, data.created.replace("T", " ").replace("+00:00", " UTC")]
    .filter(Boolean).map((part) => Text.inline(part, 60)).join(" · ");
  at("losses").className = data.losses.look;
  at("losses").textContent = Text.safe(data.losses.sentence);
  at("notes").append(...data.notes.map((note) => el("li", {}, Text.name(note, 400))));

  // Draws what is as wide as its place, again where that changes.
  function fitted(node, draw) {
    let width = 0;
    new ResizeObserver(() => {
      if (node.clientWidth === width) return;
      width = node.clientWidth;
      draw(node, width);
    }).observe(node);
    // What is drawn for paper is scaled to it.
    addEventListener("beforeprint", () => draw(node, PAPER));
    addEventListener("afterprint", () => draw(node, width));
  }

  fitted(at("graph"), (node, width) => node.replaceChildren(ChainGraph.draw(data.links, width)));
  const [whole, queued] = ["blocked", "runq"].map((field) => data.links.reduce((sum, link) => sum + link[field], 0));
  at("graph-note").hidden = !whole || !queued;
  at("graph-note").textContent = `The graph is of the time parked, ${Text.duration(whole)}. What was waited for a P after that, ${Text.duration(queued)}, is in the table only.`;
  at("links").append(Table.make("", ["waited in, why, and made to go on by", "parked", "then for a P", "waits"], data.links.map((link) => [
    place(link, ["began as ", Text.name(link.started, 60)], link.waker),
    Table.bar(Text.duration(link.blocked), link.blocked, whole), Text.duration(link.runq), Text.number(link.count),
  ])));

  if (data.steps.length) {
    at("path-panel").hidden = false;
    at("path-title").textContent = "The path of " + Text.inline(about, 60);
    const begin = Math.min(...data.steps.map((step) => step.from));
    at("steps").querySelector("div").append(Table.make("", ["waited in, why, and made to go on by", "after", "for"], data.steps.map((step) => [
      place({ ...step, words: step.parked ? step.words : "waits for a P" }, [ChainPath.nameOf(step, data.several)],
        !step.parked ? NOBODY : step.waker_goid ? `${step.waker} (goroutine ${step.waker_goid})` : step.waker),
      Text.milliseconds(step.from - begin), Text.duration(step.to - step.from),
    ])));
    fitted(at("path"), (node, width) => ChainPath.draw(node, width, data.steps, data.several));
  }
  Theme.attach(at("theme"), () => {});
  at("main").setAttribute("aria-busy", "false");
})();
