"use strict";
// The panel of the flame graph: which stacks it shows, what is said about them, and its table.
const FlameView = (() => {
  const byId = (id) => document.getElementById(id);
  const TITLES = { victim: "Where they waited", waker: "Who woke them", culprit: "What ran meanwhile" };

  // The profile whose own values are shown in place of waits, if one is.
  const profileOf = (cube, view) => (view.stack.startsWith("profile-") ? cube.profiles[view.stack.slice(8)] : null);

  function formatOf(cube, view) {
    const profile = profileOf(cube, view);
    if (profile && profile.unit === "count") {
      const things = Text.short(profile.measure, 30);
      return (n) => `${Text.number(n)} ${Text.isolated(things)}${n === 1 || things.endsWith("s") ? "" : "s"}`;
    }
    return view.counted ? Text.waits : Text.duration;
  }

  // Choices of stacks that only this trace has.
  function options(cube) {
    const own = cube.profiles.map((p, i) => ({ p, i })).filter(({ p }) => !p.on_cpu);
    return [
      ...(cube.hasCulprits ? [new Option("who ran meanwhile", "culprit")] : []),
      ...own.map(({ p, i }) => new Option(`profile: ${Text.inline(p.measure, 20)}`, `profile-${i}`)),
    ];
  }

  function notes(cube, view, stacks, format) {
    const profile = profileOf(cube, view);
    if (profile) {
      const apart = profile.unit === "count" ? "Numbers of things, not times" : "Not time on the CPU, and not of these waits";
      return [`From a profile, ${Text.short(profile.sentence, 200)}. ${apart}.` + Profiles.words(cube, view, stacks.found, format)];
    }
    const out = [];
    if (view.stack === "culprit") out.push("While these waited, this ran, or held what they waited for: width is the waiters' time. " + (stacks.open || ""));
    else if (cube.source === "histograms") out.push("This trace has histograms only, no single waits: in place of stacks you see cgroup, kind and policy.");
    else if (!cube.hasStacks) out.push("This trace has no stacks (record with --stacks both): in their place you see cgroup, thread, kind and policy.");
    const ran = cube.profiles.filter((p) => p.on_cpu);
    if (view.ranShown) {
      out.push("Waiting and, from profiles, running: " + ran.map((p) => Text.short(p.sentence, 200)).join("; ") + "." + Profiles.words(cube, view, [stacks.ran.a, stacks.ran.b], Text.duration));
    } else if (ran.length && view.profile === "with") {
      out.push("Profiles are shown beside the time lost of who waited; choose that to see them.");
    }
    return out;
  }

  function draw(cube, view, flame, stacks, a, b) {
    const format = formatOf(cube, view);
    const source = Stacks.source(cube, view, stacks, a, b);
    const tree = FlameTree.of(source, view, b && { a: view.seconds(view.cells), b: view.seconds(view.other) });
    const said = notes(cube, view, source, format);
    byId("flame-note").textContent = said.join(" ");
    byId("flame-note").hidden = !said.length;
    flame.scaleName = view.compare === "rate" ? "per second" : "share";
    flame.nothing = source.open ? "None that is kept here." : "No waits here.";
    flame.show(tree, format);
    Object.assign(byId("flame").dataset, { value: tree.root.a, other: tree.root.b });
    const profile = profileOf(cube, view);
    const title = profile ? `Profile: ${Text.inline(profile.measure, 30)}` : TITLES[view.stack];
    byId("flame-title").textContent = title + (view.other ? ": B against A" : "");
    FlameTable.attach(tree, format);
  }

  return { draw, options };
})();
