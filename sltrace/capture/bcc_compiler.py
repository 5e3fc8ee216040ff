"""Runs BCC's compiler in a process of its own (bcc_child) and takes over the loaded programs."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from sltrace.capture import bcc_child
from sltrace.errors import CannotRecord

MODULE_PATHS = (
    Path("/usr/lib/python3/dist-packages"),
    *Path("/usr/lib").glob("python3.*/site-packages"),
)
"""Where distributions install BCC's Python module (Debian and Ubuntu; Fedora)."""

_COMPILE_TIMEOUT_S = 120
_ANSWER_BYTES = 1 << 16
_MAX_PROGRAMS = 64


def source_path() -> Path:
    """The BCC probes: in the wheel beside the package, in a checkout under probes."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "probes", package.parent / "probes"):
        if (candidate / "sched.bcc.c").is_file():
            return candidate / "sched.bcc.c"
    raise CannotRecord("the BCC probes' source is missing", "reinstall sltrace")


def module_path() -> Path:
    """The folder that holds BCC's Python module.

    Raises:
        CannotRecord: It is not installed.
    """
    for candidate in MODULE_PATHS:
        if (candidate / "bcc" / "libbcc.py").is_file():
            return candidate
    raise CannotRecord(
        "BCC's Python module is not installed",
        "apt install python3-bpfcc (PyPI's bcc is another project)",
    )


def compile_programs(
    source: Path, cflags: list[str], programs: tuple[str, ...], map_fds: tuple[int, ...] = ()
) -> tuple[dict[str, int], dict[str, str]]:
    """Compiles a source with BCC, with no kernel headers, and loads its raw tracepoint programs.

    Args:
        source: BCC's C; it may include the probes' headers.
        cflags: For the compiler; file names in them must be absolute.
        programs: Functions to load.
        map_fds: Maps whose descriptors the source names as numbers.

    Returns:
        File descriptors of the loaded programs, and why others could not be loaded.

    Raises:
        CannotRecord: There is no BCC, or it could not compile.
    """
    probes = source_path().parent
    answer, fds, said = _run_compiler(
        source, ["-Werror", f"-I{probes}", *cflags], programs, map_fds, headers=probes / "bcc"
    )
    failed = {name: f"{why}{_verifier_says(said)}" for name, why in answer["failed"].items()}
    return dict(zip(answer["loaded"], fds, strict=True)), failed


def offsets_from_headers(headers: Path | None = None) -> dict[str, int]:
    """Byte offsets by `struct_field` from kernel headers, as `kernel_offsets` has them from BTF.

    Args:
        headers: Build tree; by default the running kernel's.

    Raises:
        CannotRecord: There is no BCC, or there are no headers.
    """
    source = source_path().with_name("kernel_offsets.bcc.c")
    answer, _fds, _said = _run_compiler(source, [], (), (), headers=headers)
    constants: dict[str, int] = answer["constants"]
    return constants


def _run_compiler(
    source: Path,
    cflags: list[str],
    programs: tuple[str, ...],
    map_fds: tuple[int, ...],
    *,
    headers: Path | None,
) -> tuple[dict[str, Any], list[int], str]:
    order = {
        "module_path": str(module_path()),
        "source": str(source),
        "cflags": cflags,
        "programs": programs,
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BCC_")}
    if headers:
        environment["BCC_KERNEL_SOURCE"] = str(headers)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        try:
            # -I -S: nothing but the standard library, and BCC from where it is known to be.
            done = subprocess.run(
                [sys.executable, "-I", "-S", bcc_child.__file__],
                input=json.dumps(order | {"socket": theirs.fileno()}),
                pass_fds=(*map_fds, theirs.fileno()),
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMPILE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise CannotRecord(
                f"BCC did not compile the probes within {_COMPILE_TIMEOUT_S} s",
                "use --loader libbpf",
            ) from err
        said = done.stdout + done.stderr
        if done.returncode:
            raise _compile_error(said, done.returncode)
        message, fds, _flags, _address = socket.recv_fds(ours, _ANSWER_BYTES, _MAX_PROGRAMS)
    return json.loads(message), fds, said


def _compile_error(said: str, code: int) -> CannotRecord:
    release = platform.release()
    if "Unable to find kernel headers" in said:
        return CannotRecord(
            f"no BTF and no kernel headers for {release}",
            f"apt install linux-headers-{release}",
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    crashed = f"its compiler ended with {code}"
    first = next((line for line in lines if "error:" in line), lines[-1] if lines else crashed)
    return CannotRecord(f"BCC cannot compile the probes: {first[:300]}", "use --loader libbpf")


def _verifier_says(said: str) -> str:
    """The verifier's last words; BCC prints its whole log."""
    lines = [line for line in said.splitlines() if line and not line.startswith("processed ")]
    return f" ({lines[-1].strip()[:200]})" if lines else ""
