"""How what the tests run is built."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.support.programs import once


def test_of_two_that_want_a_program_one_builds_it(tmp_path: Path) -> None:
    """The other must not replace what the first may already run."""
    source, output = tmp_path / "source", tmp_path / "build" / "program"
    source.touch()
    both, made = threading.Barrier(2), []

    def make(partial: Path) -> None:
        made.append(partial)
        # Longer than the other takes to see that there is none.
        time.sleep(0.3)
        partial.touch()

    def want() -> None:
        both.wait()
        assert once(output, [source], make) == output

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert output.exists()
