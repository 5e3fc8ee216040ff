"""Options of `sltrace record` that cannot be, or would do nothing, are refused before anything."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from sltrace.capture.settings import TRACE_LABEL_BYTES, TRACE_LABELS, Go, Python
from sltrace.cli.main import run
from tests.support.programs import ROOT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--stack-min 1ms", "--stack-min and --stack-rate are about stacks"),
        ("--stack-rate 9", "give --stacks both, or leave them out"),
        ("--histogram-only --waker-stacks", "--histogram-only keeps no stacks"),
        ("--histogram-only --min-latency 1ms", "--histogram-only keeps no single waits"),
        ("--no-python --python-loops", "--no-python leaves nothing for"),
        ("--no-python --python-rate 9", "--no-python leaves nothing for"),
        ("--histogram-only --python-loops", "--histogram-only leaves nothing for"),
        ("--cgroup / --python-rate 9", "are about Python processes that are named"),
        ("--histogram-only --python -p 1", "--histogram-only leaves nothing for --python, "),
        ("--loader bcc --python -p 1", "--loader bcc looks into no Go and no Python process"),
        ("--loader bcc --go", "--loader bcc looks into no Go and no Python process"),
        ("--python", "--python, --python-loops and --python-rate are about Python processes that"),
        ("--histogram-only --go-trace-label id", "--histogram-only keeps no waits of goroutines"),
        # Even where they are what would be without them.
        (f"--no-python --python-rate {Python.rate_per_cpu}", "--no-python leaves nothing for"),
        ("--stack-rate 0", "--stack-min and --stack-rate are about stacks"),
        (f"--no-go --go-trace-label {Go.trace_labels[0]}", "--no-go leaves nothing for"),
        ("--no-go --go-level 0", "--no-go leaves nothing for --go-level"),
        ("--no-go --go-budget none", "--no-go leaves nothing for --go-level"),
        ("--no-go --go-trace-label id", "--no-go leaves nothing for --go-level"),
        ("--go-level 0 --go-budget 5", "--go-level 0 has no probes"),
        ("--loader bcc --go-level 2", "--loader bcc looks into no Go and no Python process"),
        ("--loader bcc --python-loops true", "--loader bcc looks into no Go and no Python"),
        ("--loader bcc --pyroscope-listen 4040", "--loader bcc takes no profiles in"),
        ("--histogram-only --go-level 2", "--histogram-only keeps no waits of goroutines"),
        ("-q --", "there is no command behind --"),
        ("--stack-rate 999999999999", "is not in the range 0<=x<=1000000"),
        ("--python-rate 999999999999", "is not in the range 0<=x<=1000000"),
        ("--go-trace-label \udcff", "at most 4 keys of 1 to 24 bytes"),
        (f"--go-trace-label {'x' * 25}", "at most 4 keys of 1 to 24 bytes"),
        (f"{'--go-trace-label x ' * 5}", "at most 4 keys of 1 to 24 bytes"),
        ("--cpu 0-", "--cpu '0-' is not a CPU list; write it as 0-3,8"),
    ],
)
def test_what_cannot_be_or_does_nothing(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["record", *options.split()]) == 2
    assert message in capsys.readouterr().err


def test_what_the_recorder_is_loaded_with_is_not_for_the_command() -> None:
    """NumPy in a recorded program has as many threads as without."""
    program = (
        "import os; before = dict(os.environ); from sltrace.cli.main import run; "
        "assert run(['record', '--stack-rate', '9']) == 2; assert os.environ == before; "
        "import numpy; print(len(os.listdir('/proc/self/task')))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout == "1\n"


def test_limits_of_labels_are_those_of_the_probes() -> None:
    header = (ROOT / "probes/go.h").read_text()
    limits = dict(re.findall(r"#define GO_LABEL_(KEYS|BYTES)\s+(\d+)", header))
    assert limits == {"KEYS": str(TRACE_LABELS), "BYTES": str(TRACE_LABEL_BYTES)}
