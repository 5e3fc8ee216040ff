"use strict";
// A page that `sltrace serve` serves asks its server: for the waits of a part of the time, at any
// zoom, and for the exact percentiles of a selection. Without the server it goes on with what it has.
class Exact {
  constructor(cube) {
    Object.assign(this, { cube, timer: 0, asking: new AbortController(), refining: new AbortController() });
    this.recording = { ...cube };
    this.status = document.getElementById("zoom-status");
    this.into = document.getElementById("zoom-in");
    this.out = document.getElementById("zoom-out");
    document.getElementById("zoom").hidden = false;
  }

  // The part that the address names, before anything is drawn.
  async begin() {
    await this.load(Exact.partOf(location.hash));
  }

  attach(view, heatmap, renew) {
    Object.assign(this, { view, heatmap, renew });
    heatmap.node.on("plotly_relayout", (changes) => {
      if (!Object.keys(changes).some((name) => name.startsWith("xaxis."))) return;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.follow(), Exact.CALM_MS);
    });
    heatmap.node.on("plotly_doubleclick", () => {
      // Later than the click that is a part of it.
      if (this.cube.part && heatmap.node.layout.dragmode !== "select") setTimeout(() => this.show(null), Exact.CALM_MS);
    });
    this.into.addEventListener("click", () => {
      const { x0, x1 } = view.cells;
      this.show(this.text(x0 * this.cube.bin_ns, (x1 + 1) * this.cube.bin_ns));
    });
    this.out.addEventListener("click", () => this.show(null));
    window.addEventListener("hashchange", () => {
      const part = Exact.partOf(location.hash);
      if (part !== this.wanted) this.show(part, true);
    });
  }

  // `FROM-TO` in ns since the recording began; null for all of it, or for what is not a part.
  static partOf(hash) {
    const part = new URLSearchParams(hash.slice(1)).get("part");
    const match = /^(\d{1,16})-(\d{1,16})$/.exec(part || "");
    return match && +match[1] < +match[2] ? part : null;
  }

  text(from, to) {
    const { offset_ns } = this.cube;
    return `${Math.max(0, Math.round(offset_ns + from))}-${Math.round(offset_ns + to)}`;
  }

  // Loads what the plot was zoomed or moved to.
  follow() {
    const [low, high] = this.heatmap.node.layout.xaxis.range.map((s) => s * 1e9 - this.cube.offset_ns);
    const { bin_ns, duration_ns } = this.cube;
    if (Math.abs(low) < bin_ns / 2 && Math.abs(high - duration_ns) < bin_ns / 2) return;
    if (high - low > Exact.ALL * this.recording.duration_ns) this.show(null);
    else if (high - low >= Exact.LEAST_NS) this.show(this.text(low, high));
  }

  async show(part, fromAddress = false) {
    if (!(await this.load(part))) return;
    this.renew();
    // Cells are others now: a selection of the old ones means nothing.
    if (fromAddress) {
      this.view.read();
      // What was chosen meanwhile was written with the part that was here then.
      this.view.write();
      this.view.tell();
    } else this.view.set({ cells: null, other: null, cursor: null, target: "a" });
  }

  // Makes the cube that of a part; tells whether it is.
  async load(part) {
    this.wanted = part;
    this.asking.abort();
    // The server answers one question at a time: not first those that nobody waits for any more.
    this.refining.abort();
    const { signal } = this.asking = new AbortController();
    if (!part) {
      await this.settled();
      if (signal.aborted) return false;
      if (this.cube.part) this.cube.load({ ...this.recording, part: null });
      this.say("Zoom in for finer cells.");
      return true;
    }
    this.say("Reading this part of the trace …");
    const [from, to] = part.split("-").map(Number);
    const since = (ns) => Math.max(0, Math.round(ns + this.recording.since_ns));
    try {
      const { block, ...json } = await Exact.ask("part", [["after", since(from)], ["before", since(to)]], signal);
      const data = await Decode.unpacked(json, block);
      await this.settled();
      if (signal.aborted) return false;
      this.cube.load({ ...data, part });
      this.say(`${this.cube.whole}, in cells of ${Text.limit(data.bin_ns)}, counted from all its waits: ${data.aggregated.slice(1).map(Text.safe).join("; ") || "nothing is put together"}.`);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      this.wanted = this.cube.part || null;
      this.fail(error);
      return false;
    }
  }

  // When no drag is under way, whose cells must stay.
  async settled() {
    if (this.heatmap && this.heatmap.held.down) await this.heatmap.held.free();
  }

  // Exact percentiles in place of the limits of their buckets, once the reader has stopped.
  refine(view) {
    this.refining.abort();
    const { signal } = this.refining = new AbortController();
    this.into.disabled = !view.cells;
    this.out.disabled = !this.cube.part;
    clearTimeout(this.pause);
    this.pause = setTimeout(async () => {
      if (signal.aborted) return;
      const lines = [...document.querySelectorAll("#figures > .figures")];
      for (const [i, cells] of [view.cells, view.other].slice(0, lines.length).entries()) {
        const query = this.query(view, cells);
        if (!query) continue;
        try {
          const { groups } = await Exact.ask("stat", query, signal);
          if (signal.aborted) return;
          this.write(lines[i], groups[0], view.rows(cells));
        } catch (error) {
          if (!signal.aborted) this.fail(error);
          return;
        }
      }
      Exact.compare(lines);
    }, Exact.CALM_MS);
  }

  // The waits of a selection as the server's parameters; null where those cannot tell them.
  query(view, cells) {
    const { cube } = this;
    const query = [["by", ""], ["kept", "1"], ...view.kinds.map((k) => ["only", "kind=" + k])];
    const [x0, x1] = cells ? [cells.x0, cells.x1] : [0, cube.bins - 1];
    const at = (bin) => cube.offset_ns + bin * cube.bin_ns + this.recording.since_ns;
    if (cube.part || x0 > 0) query.push(["after", at(x0)]);
    if (cube.part || x1 < cube.bins - 1) query.push(["before", at(x1 + 1)]);
    const axis = view.axisNow;
    if (cells && (cells.y0 > 0 || cells.y1 < axis.size - 1)) {
      const rows = axis.exactly(cells.y0, cells.y1);
      if (axis.name === "latency") {
        query.push(["min_wait", rows[0]]);
        if (rows[1] !== null) query.push(["max_wait", rows[1]]);
      } else if (axis.name === "kind") {
        // Two conditions on one dimension would mean either.
        query.splice(2, view.kinds.length, ...rows.filter((k) => view.kinds.includes(k)).map((k) => ["only", "kind=" + k]));
      } else query.push(...rows.map((value) => ["only", `${axis.name}=${value}`]));
      const several = (axis.rest && cells.y0 === 0) || (axis.name === "cpu" && cube.cpu_group > 1);
      if (several || !Exact.ASKABLE.includes(axis.name)) return null;
    }
    const vague = query.some(([, value]) => String(value).endsWith("=" + Text.REST));
    return vague || query.length > Exact.MAX_QUERY || query.some(([, v]) => v < 0) ? null : query;
  }

  // Only if the server counted the same waits: else the limits stay.
  write(line, group, rows) {
    const { count, ns } = this.cube.distribution(rows);
    if (!group || group.count !== count || group.total_ns !== ns) return;
    for (const [name, key] of [["p50", "p50_ns"], ["p90", "p90_ns"], ["p99", "p99_ns"], ["p99.9", "p999_ns"], ["longest", "max_ns"]]) {
      const tile = [...line.querySelectorAll(".figure")].find((f) => f.dataset.name === name);
      tile.dataset.exact = group[key];
      tile.firstElementChild.textContent = Text.duration(group[key]);
    }
    line.querySelector(".figures-title").append(Text.element("span", { class: "exact" }, " exact"));
  }

  // How much more B has of what is exact in both.
  static compare(lines) {
    for (const tile of document.querySelectorAll("#figures [data-change]")) {
      const [a, b] = lines.map((line) => line.querySelector(`[data-name="${tile.dataset.change}"][data-exact]`));
      if (a && b) tile.firstElementChild.textContent = Figures.times(+a.dataset.exact, +b.dataset.exact);
    }
  }

  // The answer of the server to a question.
  static async ask(question, query, signal) {
    let answer;
    try {
      answer = await fetch(`api/${question}?${new URLSearchParams(query)}`, { cache: "no-store", referrerPolicy: "no-referrer", signal });
    } catch {
      throw new Error(Exact.GONE);
    }
    const found = await answer.json().catch(() => ({ error: Exact.GONE }));
    if (!answer.ok) throw new Error(found.error || Exact.GONE);
    return found;
  }

  say(text, bad = false) {
    this.status.textContent = text;
    this.status.className = bad ? "bad" : "help";
  }

  fail(error) { this.say(Text.safe(error.message), true); }
}
Exact.ALL = 0.97;
Exact.LEAST_NS = 1000;
Exact.CALM_MS = 200;
Exact.MAX_QUERY = 150;
Exact.ASKABLE = ["latency", "cpu", "cgroup", "comm", "policy", "kind"];
Exact.GONE = "sltrace serve does not answer any more: this page goes on with what it has. Start it again for a closer look.";
