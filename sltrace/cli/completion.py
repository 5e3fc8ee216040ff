"""`sltrace completion`: the shell's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sltrace.cli import shells


@click.command(
    epilog='Try it: eval "$(sltrace completion bash)". To keep it, put that line into ~/.bashrc.'
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes sltrace's commands and options in SHELL."""
    shells.register()
    complete = get_completion_class(shell)
    assert complete is not None
    source = complete(ctx.find_root().command, {}, "sltrace", "_SLTRACE_COMPLETE").source()
    click.echo(source)
