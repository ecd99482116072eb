"""``dockage completion``: what a shell needs to complete our command line."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dockage.cli.options import Command, json_option
from dockage.cli.session import Session


@click.command(
    cls=Command,
    examples=(
        'eval "$(dockage completion bash)"          # in ~/.bashrc',
        "dockage completion fish > ~/.config/fish/completions/dockage.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL; leases, channels and providers are completed, too."""
    session = ctx.find_object(Session)
    kind = get_completion_class(shell)
    assert session is not None
    assert kind is not None
    root = ctx.find_root().command
    script = kind(root, {}, "dockage", "_DOCKAGE_COMPLETE").source()
    session.show({"shell": shell, "script": script}, script)
