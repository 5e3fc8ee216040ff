"use strict";
// Numbers and names as people read them. Every name comes from a traced program: it is shown as
// text only, and what would reorder, hide or control text is shown as its escape.
const Text = (() => {
  // DI and the last one, a Braille cell without dots, are letters and marks that show as nothing.
  const UNSAFE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{DI}\u2800]/gu;
  // Blocks of scripts that are written from right to left.
  const LEFTWARDS = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
  // Made once: making a format takes far longer than using it, and a selection writes a thousand.
  const PLACES = [0, 1, 2].map((n) => new Intl.NumberFormat("en", { minimumFractionDigits: n, maximumFractionDigits: n }));
  const WHOLE = new Intl.NumberFormat("en");
  // What the data calls names that it has put together.
  const REST = "all others";
  const UNITS = [["s", 1e9], ["ms", 1e6], ["µs", 1e3]];

  function escaped(character) {
    const code = character.codePointAt(0);
    return code < 0x100 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
  }

  // Spaces alone would show as nothing.
  const safe = (name) => name.trim() ? name.replace(UNSAFE, escaped) : [...name].map(escaped).join("");

  // Both ends of a cgroup path or a symbol tell something: the middle goes.
  function short(name, length) {
    // By characters: one outside of the first plane is two units of a string.
    const text = [...safe(name)];
    if (text.length <= length) return text.join("");
    const head = Math.ceil((length - 1) / 2);
    return [...text.slice(0, head), "…", ...text.slice(text.length - (length - 1 - head))].join("");
  }

  // What is among other words is kept apart from those: letters from right to left would take the
  // numbers beside them along. From left to right as a whole, as it is where it stands alone.
  const isolated = (text) => (LEFTWARDS.test(text) ? "\u2066" + text + "\u2069" : text);

  // A name in a line of words.
  const inline = (name, length = Infinity) => isolated(short(name, length));

  // Short forms of names that stand together, by name: what would look alike keeps what tells it apart.
  function shorts(names, length) {
    const forms = new Map([...new Set(names)].map((name) => [name, short(name, length)]));
    for (const group of alike(forms)) apart(group.map((name) => [name, [...safe(name)]]), length, forms);
    return (name) => forms.get(name);
  }

  // Names with the same form, in groups.
  function alike(forms) {
    const groups = new Map();
    for (const [name, form] of forms) groups.set(form, [...(groups.get(form) || []), name]);
    return [...groups.values()].filter((group) => group.length > 1);
  }

  // Letters that are shown before the first that differs.
  const LEAD = 2;

  // Gives names a form of their first letters, those from where they differ on, and their last ones.
  function apart(group, length, forms, tries = 8) {
    const shortest = Math.min(...group.map(([, text]) => text.length));
    const [, like] = group[0];
    let from = 0;
    while (from < shortest && group.every(([, text]) => text[from] === like[from])) from++;
    const end = Math.floor((length - 2) / 4);
    from = Math.max(end, from - LEAD);
    const found = new Map(group.map(([name, text]) => {
      const to = from + length - 2 - 2 * end;
      const rest = text.length - to <= end + 1 ? text.slice(to) : ["…", ...text.slice(text.length - end)];
      return [name, [...text.slice(0, end), "…", ...text.slice(from, to), ...rest].join("")];
    }));
    for (const [name, form] of found) forms.set(name, form);
    if (!tries) return;
    const texts = new Map(group);
    for (const same of alike(found)) apart(same.map((name) => [name, texts.get(name)]), length, forms, tries - 1);
  }

  function duration(ns) {
    for (const [unit, size] of UNITS) {
      if (ns >= size * 0.9995) {
        const value = ns / size;
        const places = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
        return PLACES[places].format(value) + " " + unit;
      }
    }
    return Math.round(ns) + " ns";
  }

  // The shortest exact form, for limits of buckets: 1 µs, not 1.00 µs.
  function limit(ns) {
    for (const [unit, size] of UNITS) {
      if (ns >= size) return +(ns / size).toPrecision(4) + " " + unit;
    }
    return ns + " ns";
  }

  function between(low, high) {
    if (high === null) return "≥ " + limit(low);
    const [[from, unit], [to, other]] = [limit(low).split(" "), limit(high).split(" ")];
    return unit === other ? `${from} – ${to} ${unit}` : `${from} ${unit} – ${to} ${other}`;
  }

  // The kinds of sltrace.model.Kind in words, in the order in which they are offered; one from
  // elsewhere stays as it is, and is last. Maps, as it may be called what every object has.
  const KINDS = new Map(Object.entries({
    runq_wakeup: "woken", runq_preempt: "preempted", throttled: "CPU quota", goroutine: "goroutine queue", gil: "Python GIL",
    stw: "stopped world", blocked: "blocked", goroutine_blocked: "goroutine parked", loop: "event loop",
  }));
  const MEANINGS = new Map(Object.entries({
    runq_wakeup: "woken, waiting for a CPU", runq_preempt: "lost the CPU, waiting to get one back",
    throttled: "the CPU quota of the cgroup, or of one above it, was used up", blocked: "asleep: I/O, locks, timers",
    goroutine: "a runnable goroutine, waiting for a P", stw: "a Go process was stopped by its runtime, or a Python collection ran",
    goroutine_blocked: "a parked goroutine: channel, lock, network, timer",
    gil: "waiting for Python's global interpreter lock", loop: "one iteration of an event loop",
  }));
  const kind = (name) => KINDS.get(name) || name;
  const place = (name) => [...KINDS.keys()].indexOf(name) >>> 0;
  const inOrder = (kinds) => [...kinds].sort((x, y) => place(x) - place(y));
  const meaning = (name) => MEANINGS.get(name) || "";

  const number = (value) => WHOLE.format(value);
  const waits = (n) => number(n) + (n === 1 ? " wait" : " waits");
  const percent = (part, whole) => whole ? (100 * part / whole).toFixed(1) + " %" : "";
  const seconds = (ns) => (ns / 1e9).toFixed(3).replace(/\.?0+$/, "") + " s";

  const milliseconds = (ns) => (ns / 1e6).toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 }) + " ms";

  // What is written as nothing has no sign.
  function signed(value, format) {
    const text = format(Math.abs(value));
    return text === format(0) ? text : (value > 0 ? "+" : "−") + text;
  }

  // An element with text; children may be elements or strings.
  function element(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  function svg(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  // What stands for a name that the trace does not have.
  const NAMELESS = { policy: "not recorded" };
  const nameless = (dimension) => NAMELESS[dimension] || "unknown";

  // A sentence with `names` in it.
  function marked(text, length) {
    return short(text, length).split("`").map((part, i, all) => (i % 2 && i < all.length - 1 ? element("code", {}, part) : part));
  }

  // A name in a table or a line: shortened, with the full text in its title.
  function name(text, length = 36, dimension = "", shown = short(text, length)) {
    const full = safe(text);
    return element("span", { class: "name", title: shown === full ? null : full }, shown || nameless(dimension));
  }

  // All that have no line of their own, together: so many, or 0 where nobody knows.
  const rest = (count) => (count ? `${REST} (${number(count)})` : REST);

  // The same for names of one column or list: what differs does not look alike.
  function namer(names, length = 36, dimension = "") {
    const form = shorts(names, length);
    return (text) => name(text, length, dimension, form(text));
  }

  return { REST, rest, safe, short, shorts, isolated, inline, duration, limit, between, number, waits, kind, inOrder, meaning, nameless, marked, percent, seconds, milliseconds, signed, element, svg, name, namer };
})();
