"use strict";
// Elements of drawings, and lines of text while the mouse is over one.
const Svg = (() => {
  function make(tag, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function explained(node, lines) {
    node.addEventListener("mousemove", (event) => Tip.show(event.clientX, event.clientY, lines));
    node.addEventListener("mouseleave", () => Tip.hide());
    return node;
  }

  return { make, explained };
})();
