"use strict";
// The flame graph as a table of functions, made when it is opened.
const FlameTable = (() => {
  const node = document.getElementById("flame-table");

  const heads = (tree) => tree.two ? ["frame", "A", "B", "share of A", "share of B"] : ["frame", "ends here", "in all", "share"];
  const cells = (tree, f, format) => tree.two
    ? [Text.name(f.name, 80), format(f.a), format(f.b), Text.percent(f.a, tree.root.a), Text.percent(f.b, tree.root.b)]
    : [Text.name(f.name, 80), format(f.self), format(f.a), Text.percent(f.a, tree.root.a)];

  function attach(tree, format) {
    const list = () => node.lastElementChild.replaceChildren(Table.make("", heads(tree), tree.functions().map((f) => cells(tree, f, format))));
    node.ontoggle = () => { if (node.open) list(); };
    if (node.open) list();
  }

  return { attach };
})();
