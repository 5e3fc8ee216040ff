"use strict";
// The one tooltip: text only, kept on the screen, out of the way of the keyboard.
const Tip = (() => {
  const node = document.getElementById("tip");
  function show(x, y, lines) {
    node.replaceChildren(...lines.map((line) => Text.element("div", {}, line)));
    node.hidden = false;
    node.style.left = Math.max(4, Math.min(x + 14, innerWidth - node.offsetWidth - 8)) + "px";
    node.style.top = (y + 18 + node.offsetHeight > innerHeight ? y - node.offsetHeight - 10 : y + 16) + "px";
  }
  const hide = () => { node.hidden = true; };

  // Shows lines of text while the mouse is over an element; the element.
  function over(element, lines) {
    element.addEventListener("mousemove", (event) => show(event.clientX, event.clientY, lines));
    element.addEventListener("mouseleave", hide);
    return element;
  }

  return { show, hide, over };
})();
