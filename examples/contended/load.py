"""A busy host in ten seconds: what `make demo` records.

    sudo .venv/bin/python -m examples.contended.load [SECONDS]

Four cgroups (web, batch, noisy, limited to 20 % of a CPU) and two real-time programs share the
machine. The README beside this says what a recording shows. Needs root and a C compiler; removes
its cgroups and processes at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.support.cgroups import Cgroup, CgroupError, cgroup
from tests.support.programs import BuildError, build

SOURCE = Path(__file__).with_name("load.c")
FLAGS = ("-std=gnu11", "-O1", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-pthread")


def main(arguments: list[str]) -> int:
    """Runs the load; returns the exit code."""
    seconds = int(arguments[0]) if arguments and arguments[0].isdigit() else 10
    if os.geteuid() != 0:
        print("contended: needs root for cgroups and real-time priorities; use sudo")
        return 3
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _run(seconds)
    except (BuildError, CgroupError) as err:
        print(f"contended: {err}")
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


def _run(seconds: int) -> None:
    load = build("contended", (SOURCE,), flags=FLAGS)
    last_cpu = max(os.sched_getaffinity(0))
    on_last_cpu = ["taskset", "-c", str(last_cpu)]
    with ExitStack() as stack:
        web = stack.enter_context(cgroup("web"))
        batch = stack.enter_context(cgroup("batch"))
        noisy = stack.enter_context(cgroup("noisy"))
        limited = stack.enter_context(cgroup("limited", cpus=0.2))
        # As by Kubernetes CPU requests: the web service asked for little, its neighbour for much.
        web.weigh(0.5)
        batch.weigh(0.1)
        noisy.weigh(4)
        parts: list[tuple[str, Cgroup | None, list[str]]] = [
            ("web", web, on_last_cpu),
            ("batch", batch, []),
            ("noisy", noisy, on_last_cpu),
            ("limited", limited, []),
            # Real-time threads stay where they are: with CONFIG_RT_GROUP_SCHED a new v1 group
            # has no real-time runtime and refuses them.
            ("audio", None, []),
            ("watchdog", None, []),
        ]
        running = []
        for part, group, prefix in parts:
            command = [*prefix, str(load), part, str(seconds)]
            if group is not None:
                join = 'echo $$ > "$0" && exec "$@"'
                command = ["/bin/sh", "-c", join, str(group.procs), *command]
            process = subprocess.Popen(command)
            stack.callback(_end, process)
            running.append(process)
        print(
            f"contended: running {seconds} s, web and its neighbour on CPU {last_cpu}", flush=True
        )
        for process in running:
            process.wait()
        stat = limited.cpu_stat()
        print(
            f"contended: 'limited' was throttled in {stat.throttled} of {stat.periods} periods,"
            f" {stat.throttled_ns / 1e9:.2f} s over its CPUs"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
