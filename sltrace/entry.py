"""Entry point of the `sltrace` program."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Ends by a Ctrl-C that comes while modules are read, as the program can say nothing yet."""
    # What was ignored stays so: whatever a script starts with &.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sltrace.cli.main import main as begin

    begin()
