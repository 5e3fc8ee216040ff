"use strict";
// The flame graph as a table of functions, made when it is opened.
const FlameTable = (() => {
  const node = document.getElementById("flame-table");

  // Columns: head and what is in a line.
  function columns(tree, format) {
    const share = (name, whole) => (f) => Text.percent(f[name], whole);
    const value = (name) => (f) => format(f[name]);
    const ran = (head, name) => (tree.ran ? [[head, value(name)]] : []);
    if (tree.two) {
      return [["A", value("a")], ...ran("ran in A", "ran"), ["B", value("b")], ...ran("ran in B", "ranB"),
        ["share of A", share("a", tree.root.a)], ["share of B", share("b", tree.root.b)]];
    }
    return [["ends here", value("self")], ["in all", value("a")], ...ran("of it ran", "ran"), ["share", share("a", tree.root.a)]];
  }

  function attach(tree, format) {
    const list = () => {
      const shown = columns(tree, format);
      const lines = tree.functions().map((f) => [Text.name(f.name, 80), ...shown.map(([, cell]) => cell(f))]);
      node.lastElementChild.replaceChildren(Table.make("", ["frame", ...shown.map(([head]) => head)], lines));
    };
    node.ontoggle = () => { if (node.open) list(); };
    if (node.open) list();
  }

  return { attach };
})();
