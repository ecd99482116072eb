"""``dockage id``: the node's key, which is its name everywhere."""

from __future__ import annotations

import click

from dockage.cli.errors import NotRunning
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session


@click.command(cls=Command, examples=("dockage id", "dockage provide --only-for $(ssh laptop dockage id)"))
@json_option
@click.pass_obj
def command(session: Session) -> None:
    """Print this node's key (64 hex digits). It is made if there is none yet."""
    try:
        node = session.client.get("status")["node"]
    except NotRunning:
        from dockage.daemon.system import identity  # slow, but it needs no daemon

        node = identity(session.home).hex()
    session.show({"node": node}, node)
