"""serve: exact answers."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest

from sltrace.analysis.part import Whole
from sltrace.analysis.selection import Selection
from sltrace.analysis.zoom import heat
from sltrace.buckets import bucket_of
from sltrace.cli.answers import answer
from sltrace.cli.web import Server
from sltrace.errors import OutputError
from sltrace.trace.reader import Trace
from tests.pure.test_analysis_latency import random_waits
from tests.support.cli import sltrace
from tests.support.profiles import make_pprof
from tests.support.programs import ROOT
from tests.support.served import PAGE, ask, get, serving
from tests.support.traces import META, SECOND, make_trace

RUNQ = ("runq_wakeup", "runq_preempt")


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, pd.DataFrame]]:
    frame = random_waits(71, 4000)
    with serving(tmp_path_factory.mktemp("served"), frame) as server:
        yield server, frame


def test_answers_are_pandas(served: tuple[Server, pd.DataFrame]) -> None:
    server, frame = served
    part = frame[
        frame["end_ns"].between(2 * SECOND, 5 * SECOND, inclusive="left")
        & (frame["wait_ns"] >= 1000)
        & frame["comm"].isin(["web", "db"])
    ]
    query = {
        "after": 2 * SECOND,
        "before": 5 * SECOND,
        "min_wait": 1000,
        "only": ["comm=web", "comm=db"],
    }
    stat = ask(server, "stat", by="cgroup", **query)
    runq = part[part["kind"].isin(RUNQ)]
    assert {g["keys"]["cgroup"]: g["total_ns"] for g in stat["groups"]} == (
        runq.groupby("cgroup")["wait_ns"].sum().to_dict()
    )
    flame = ask(server, "flame", root="comm", **query)
    assert (sum(flame["counts"]), sum(flame["wait_ns"])) == (len(part), part["wait_ns"].sum())
    blame = ask(server, "blame", **query)
    assert blame["total_ns"] == part[part["kind"] != "blocked"]["wait_ns"].sum()
    known = part[part["trace_id"].notna()]
    traces = ask(server, "traces", **query)
    assert traces["count"] == known["trace_id"].nunique()
    one = ask(server, "trace", id="ab" * 16)
    assert len(one["waits"]) == (frame["trace_id"] == "ab" * 16).sum()
    assert ask(server, "diagnosis")["losses"]["lost"] == 0


@pytest.mark.parametrize("by", ["latency", "cpu", "tid", "trace_id", "comm"])
def test_the_heatmap_is_pandas_at_any_zoom(served: tuple[Server, pd.DataFrame], by: str) -> None:
    server, frame = served
    for after, before, columns in ((0, 10 * SECOND, 100), (3_000_000_001, 3_040_000_000, 7)):
        found = ask(server, "heat", by=by, after=after, before=before, columns=columns)
        assert (found["start_ns"], found["column_ns"]) == (after, -(-(before - after) // columns))
        part = frame[frame["end_ns"].between(after, before, inclusive="left")]
        column = (part["end_ns"] - after) // found["column_ns"]
        if by == "latency":
            row = pd.Series(bucket_of(part["wait_ns"]), index=part.index)
        else:
            times = part.groupby(by, dropna=False)["wait_ns"].sum().sort_values(ascending=False)
            values = [None if v is None or v != v else v for v in times.index]
            assert found["rows"] == values
            row = pd.Series([values.index(v) for v in part[by]], index=part.index)
        want = part.groupby([column, row])["wait_ns"].agg(["size", "sum", "max"])
        cells = found["cells"]
        names = ("column", "row", "count", "sum_ns", "max_ns")
        got = list(zip(*(cells[name] for name in names), strict=True))
        figures = want.to_numpy().tolist()
        expected = [(*i, *v) for i, v in zip(want.index, figures, strict=True)]
        assert sorted(got) == sorted(expected)


def test_a_part_is_the_page_of_its_time(served: tuple[Server, pd.DataFrame]) -> None:
    server, frame = served
    after, before = 3_000_000_001, 3_040_000_000
    found = ask(server, "part", after=after, before=before)
    assert (found["start_ns"], found["bins"]) == (str(after), 300)
    part = frame[frame["end_ns"].between(after, after + 300 * found["bin_ns"], inclusive="left")]
    assert 0 <= 300 * found["bin_ns"] - (before - after) < 300
    rows = unpacked(found["block"], found["columns"])
    longest, rest = (np.array(rows[f"rows.{n}"], np.int64) for n in ("max_ns", "rest_ns"))
    assert (sum(rows["rows.count"]), (longest + rest).sum()) == (len(part), part["wait_ns"].sum())
    assert {k: t["sum_ns"] for k, t in found["totals"].items()} == (
        part.groupby("kind")["wait_ns"].sum().to_dict()
    )
    seen = pd.Series(rows["rows.count"]).groupby(np.array(rows["rows.t"])).sum()
    assert seen.to_dict() == (
        part.groupby((part["end_ns"] - after) // found["bin_ns"]).size().to_dict()
    )


def unpacked(block: str, directory: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Columns of a page's data, as the page unpacks them."""
    data = gzip.decompress(base64.b64decode(block))
    return {
        name: np.frombuffer(data, "<" + c["type"], c["length"], c["at"]).tolist()
        for name, c in directory.items()
    }


@pytest.mark.parametrize("query", ["after=5&before=5", "after=6&before=5", "only=cpu%3D1"])
def test_a_part_that_cannot_be_is_one_error(
    served: tuple[Server, pd.DataFrame], query: str
) -> None:
    server, _ = served
    status, _, body = get(server, f"/{server.token}/api/part?{query}")
    assert (status, list(json.loads(body))) == (400, ["error"])


def test_one_group_of_everything_and_of_a_trace_that_kept_long_waits(tmp_path: Path) -> None:
    waits = [{"wait_ns": 1000 * i} for i in range(1, 101)]
    path = make_trace(tmp_path, waits, meta={"min_latency_ns": 1000})
    query = {"by": [""], "kept": ["1"], "only": ["kind=runq_wakeup"], "before": [str(5 * SECOND)]}
    (group,) = (answer(Whole(Trace.open(path)), "stat", query) or {})["groups"]
    assert (group["count"], group["p50_ns"], group["p99_ns"]) == (100, 50_000, 99_000)


def test_many_values_share_the_last_row(tmp_path: Path) -> None:
    rows = [{"tid": i, "wait_ns": 10_000 - i} for i in range(1, 701)]
    found = heat(Trace.open(make_trace(tmp_path, rows)), "tid", Selection(), columns=1)
    assert (len(found.rows), found.others, found.rows[-1]) == (501, 200, None)
    counts = dict(zip(found.cells["row"], found.cells["count"], strict=True))
    assert counts[500] == 200
    assert sum(counts.values()) == 700
    assert found.rows[:2] == [1, 2]


@pytest.mark.parametrize(
    "query",
    [
        "by=colour",
        "by=cgroup&by=comm",
        "after=soon",
        "after=-5",
        "after=" + "9" * 40,
        "only=cpu",
        "only=cpu%3Dx",
        "only=colour%3Dred",
        "limit=0",
        "limit=999999999",
        "sql=SELECT+1",
        "&".join(f"only=cpu%3D{i}" for i in range(300)),
        "by=%ff",
    ],
)
def test_a_wrong_question_is_one_error(served: tuple[Server, pd.DataFrame], query: str) -> None:
    server, _ = served
    status, _, body = get(server, f"/{server.token}/api/stat?{query}")
    assert status == 400
    assert list(json.loads(body)) == ["error"]
    assert len(body) < 1000


def test_a_port_that_is_taken_is_one_error(served: tuple[Server, pd.DataFrame]) -> None:
    server, _ = served
    with pytest.raises(OutputError, match="cannot listen on"):
        Server(server.whole, PAGE, "127.0.0.1", server.server_port)
    done = sltrace("serve", str(server.whole.trace.path), "--listen", "example.org")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = sltrace("serve", "nowhere.slt")
    assert done.returncode == 5


def test_the_command_serves_the_report(tmp_path: Path) -> None:
    waits = [{"wait_ns": i * 1000, "end_ns": i * SECOND // 10} for i in range(1, 50)]
    path = make_trace(tmp_path, waits, meta={"finished": False})
    profile = tmp_path / "cpu.pb"
    taken = {"start_unix_ns": META["clock"]["start_unix_ns"] + SECOND, "duration_ns": SECOND}
    profile.write_bytes(make_pprof({("main", "work"): [1, 3 * SECOND]}, **taken))
    with subprocess.Popen(
        [sys.executable, "-m", "sltrace", "serve", str(path), "--pprof", str(profile)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stderr
            url = process.stdout.readline()
            match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/[\w-]{32,}/)\n", url)
            assert match
            connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=20)
            connection.request("GET", match[2])
            answer = connection.getresponse()
            assert answer.status == 200
            page = answer.read()
            assert b"sltrace: testhost" in page
            assert b"connect-src 'self'" in page
            connection.request("GET", f"{match[2]}api/stat?by={quote('kind')}")
            found = json.loads(connection.getresponse().read())
            assert found["totals"]["runq"]["total_ns"] == sum(w["wait_ns"] for w in waits)
            assert b"cpu.pb: 3.00 s of cpu" in page
            for before, outside in ((3 * SECOND, 0), (SECOND, 3 * SECOND)):
                connection.request("GET", f"{match[2]}api/part?before={before}")
                found = json.loads(connection.getresponse().read())
                assert [p["outside"] for p in found["profiles"]] == [outside]
            connection.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr.read().startswith("note: ")
        finally:
            process.kill()
