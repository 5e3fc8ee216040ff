"""Compiles and loads BPF sources through BCC, in a process of its own; run by bcc_compiler.

The compiler is 110 MB of libraries and prints on stderr; here both end with this process, and the
loaded programs go to the recorder as file descriptors. It is run with no site-packages at all,
so that a package of the same name is never taken for BCC. Nothing of sltrace is imported.

Input on stdin (JSON): module_path, source, cflags, programs, socket. Output is one message on
that socket (JSON), not on stdout, where BCC writes too. With programs: their file descriptors,
`loaded` with their names in the same order, and `failed` with reasons. Without: `constants`, what
each function of the source returns.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from typing import Any

_MOVE_TO_R0 = 0xB7  # r0 = imm: opcode 0xb7, register 0 (Documentation/bpf/instruction-set.rst)


def main() -> None:
    """Does what stdin asks for."""
    order = json.load(sys.stdin)
    sys.path.append(order["module_path"])
    from bcc import BPF

    module = BPF(src_file=order["source"], cflags=order["cflags"])
    answer, fds = _load(BPF, module, order["programs"]) if order["programs"] else _read(module)
    with socket.socket(fileno=order["socket"]) as channel:
        socket.send_fds(channel, [json.dumps(answer).encode()], fds)


def _load(bpf: Any, module: Any, programs: list[str]) -> tuple[dict[str, Any], list[int]]:
    loaded: dict[str, int] = {}
    failed: dict[str, str] = {}
    for name in programs:
        try:
            loaded[name] = module.load_func(name, bpf.RAW_TRACEPOINT).fd
        except Exception as err:  # BCC raises nothing more precise
            failed[name] = str(err)
    return {"loaded": list(loaded), "failed": failed}, list(loaded.values())


def _read(module: Any) -> tuple[dict[str, Any], list[int]]:
    from bcc.libbcc import lib

    constants = {}
    for i in range(lib.bpf_num_functions(module.module)):
        name = lib.bpf_function_name(module.module, i)
        code, register, _offset, value = struct.unpack_from("<BBhi", module.dump_func(name))
        if (code, register) != (_MOVE_TO_R0, 0):
            raise ValueError(f"{name} is no constant")
        constants[name.decode()] = value
    return {"constants": constants}, []


if __name__ == "__main__":
    main()
