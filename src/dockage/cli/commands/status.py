"""``dockage status``: what this home's daemon is and does."""

from __future__ import annotations

import click

from dockage.cli.commands.daemon import summary
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session


@click.command(cls=Command, examples=("dockage status", "dockage status --json"))
@json_option
@click.pass_obj
def command(session: Session) -> None:
    """Show what this home's daemon is and does."""
    status = session.client.get("status")
    refused = [f"refused from peers: {count} x {code}" for code, count in sorted(status["refused"].items())]
    session.show(status, "\n".join([summary(status), *refused]))
