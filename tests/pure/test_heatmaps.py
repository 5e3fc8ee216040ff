from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatmaps.encode import MAX_NAME, ColumnBlock, bounded, embedded_json, said
from heatmaps.facts import COUNTED
from heatmaps.figure import base_figure
from heatmaps.page import build_page
from heatmaps.trie import Trie
from sltrace.capture import tallies
from sltrace.capture.python import rows
from sltrace.cli.main import run
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

HEATMAPS = Path(__file__).parents[2] / "heatmaps"
HOSTILE = "</script><!--columns--><script>alert(1)</script>\u2028&amp;"


class Parsed(HTMLParser):
    """Scripts of a page by their content, and its policy, as a browser's parser sees them."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.policy = ""
        self.fetched: list[str] = []
        self.inside = False
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v and v[0] != "#"]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""
        if tag == "script":
            self.inside = True
            self.scripts.append((values, ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "script"

    def handle_data(self, data: str) -> None:
        if self.inside:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def unpacked(block: ColumnBlock) -> dict[str, list[float]]:
    data = gzip.decompress(base64.b64decode(block.text()))
    return {
        name: np.frombuffer(data, "<" + c["type"], c["length"], c["at"]).tolist()
        for name, c in block.directory.items()
    }


@given(st.lists(st.lists(st.integers(0, 2**53), max_size=20), max_size=6))
def test_columns_come_back(columns: list[list[int]]) -> None:
    block = ColumnBlock()
    for i, column in enumerate(columns):
        block.add(str(i), column)
    assert unpacked(block) == {str(i): column for i, column in enumerate(columns)}
    for i, column in enumerate(columns):
        directory = block.directory[str(i)]
        assert directory["at"] % 8 == 0
        assert (directory["type"] == "u1") == (max(column, default=0) < 256)


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=8))
def test_a_trie_holds_its_stacks_and_shares_their_beginnings(stacks: list[list[int]]) -> None:
    trie = Trie.of(stacks)
    for stack, end in zip(stacks, trie.node_of_stack, strict=True):
        found, at = [], end
        while at:
            found.append(trie.frame[at])
            assert trie.parent[at] < at
            at = trie.parent[at]
        assert found[::-1] == stack
    beginnings = {tuple(s[:n]) for s in stacks for n in range(1, len(s) + 1)}
    assert len(trie.parent) == 1 + len(beginnings)


def test_a_negative_value_is_refused() -> None:
    with pytest.raises(ValueError, match="wait has a negative"):
        ColumnBlock().add("wait", [3, -1])


@given(st.text(), st.text(alphabet="<>&\u2028\u2029!-/script\ud800"))
def test_embedded_json_is_the_same_json_without_markup(a: str, b: str) -> None:
    text = embedded_json({"a": a, "b": [b]})
    assert not set(text) & set("<>&\u2028\u2029")
    text.encode()
    assert json.loads(text) == {"a": a, "b": [b]}


def test_names_are_bounded() -> None:
    assert bounded("x" * MAX_NAME) == "x" * MAX_NAME
    assert len(bounded("x" * 1_000_000)) == MAX_NAME
    assert bounded(None) == ""
    assert bounded(12) == "12"


def test_what_was_counted_has_words() -> None:
    classes = tallies.CLASSES | rows.CLASSES
    assert set(COUNTED) == {n for n, c in classes.items() if c in ("discard", "partial")}


def test_the_figure_is_plain_json_without_plotly_defaults() -> None:
    figure = base_figure(10.0, 200)
    assert json.loads(json.dumps(figure)) == figure
    assert figure["data"][0]["type"] == "heatmap"
    assert figure["data"][0]["dx"] == 0.05
    assert len(json.dumps(figure)) < 3000


def test_every_script_is_named_by_the_policy_and_nothing_is_fetched(tmp_path: Path) -> None:
    waits = [{"cgroup": HOSTILE, "culprit_comm": HOSTILE, "culprit_ns": 5}]
    trace = Trace.open(make_trace(tmp_path, waits, meta={"host": HOSTILE, "limits": [HOSTILE]}))
    page = Parsed(build_page(trace).html)
    code = [text for attributes, text in page.scripts if "type" not in attributes]
    hashes = {base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in code}
    assert set(re.findall(r"'sha256-([^']+)'", page.policy)) == hashes
    assert "default-src 'none'" in page.policy
    assert "unsafe-eval" not in page.policy
    assert page.fetched == []
    data = next(text for attributes, text in page.scripts if attributes.get("id") == "data")
    assert HOSTILE in json.loads(data)["cgroups"]
    assert len(page.scripts) == len(code) + 2


@pytest.mark.parametrize(
    "meta",
    [
        {"host": 7, "kernel": None, "command_line": "x", "filters": [1], "overhead": "y"},
        {"probes": [1], "limits": {"a": 1}, "cpus": -1, "clock": {}, "created": [1]},
        {"overhead": {"wall_ns": "z", "probe_ns": 2**70}, "probes": {"not_attached": {"a": "b"}}},
    ],
)
def test_metadata_of_the_wrong_type_still_makes_a_page(
    tmp_path: Path, meta: dict[str, object]
) -> None:
    assert build_page(Trace.open(make_trace(tmp_path, [{}], meta=meta))).rows == 1


def test_vendored_files_are_the_ones_listed() -> None:
    vendor = HEATMAPS / "vendor"
    listed = dict(re.findall(r"`(\S+\.js)`.*`([0-9a-f]{64})`", (vendor / "README.md").read_text()))
    found = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in vendor.glob("*.min.js")}
    assert listed == found
    assert (vendor / "LICENSE.plotly.js").read_text().startswith("MIT License")


def test_own_scripts_are_small_and_cannot_end_their_element() -> None:
    scripts = list((HEATMAPS / "assets").glob("*.js"))
    assert scripts
    for script in scripts:
        text = script.read_text()
        assert len(text.splitlines()) <= 300, script.name
        assert "</script" not in text.lower()
        assert "innerHTML" not in text
        # exact.js asks the server that the page came from; the policy of a file allows it nothing.
        known = "XMLHttpRequest|eval|Function" + "|fetch" * (script.name != "exact.js")
        assert not re.search(rf"\b({known})\(", text), script.name


def test_report_writes_beside_and_never_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_trace(tmp_path, [{}, {"end_ns": 5}])
    monkeypatch.chdir(tmp_path)
    assert run(["report", str(made)]) == 0
    page = tmp_path / "made.html"
    assert page.read_bytes().startswith(b"<!doctype html>")
    said = capsys.readouterr().err
    assert "made.html" in said
    assert "MB" in said
    page.write_text("precious")
    assert run(["report", str(made)]) == 6
    assert page.read_text() == "precious"
    assert "--force" in capsys.readouterr().err
    assert run(["report", str(made), "--force"]) == 0
    assert page.read_text() != "precious"
    assert run(["report", str(tmp_path / "none.slt"), "-o", "other.html"]) == 5
    assert not (tmp_path / "other.html").exists()


def test_sentences_have_microseconds_as_the_page_has_them() -> None:
    assert said("841 us to 6.13 ms of bus, 1.5 us.") == "841 µs to 6.13 ms of bus, 1.5 µs."
