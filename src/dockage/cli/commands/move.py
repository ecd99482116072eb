"""``dockage move``: a deployment goes to another provider, and nothing of it stops before the new copy serves."""

from __future__ import annotations

import click

from dockage.cli import complete, kept
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session

WAIT_SEC = 300.0


@click.command(
    cls=Command,
    examples=(
        "dockage move shop                # to the best other provider",
        "dockage move shop --to 4f3a21",
    ),
)
@click.argument("name", shell_complete=complete.of(complete.deployments))
@click.option(
    "--to",
    metavar="PROVIDER",
    default="",
    shell_complete=complete.of(complete.providers),
    help="The first digits of its key.",
)
@click.option("-d", "--detach", is_flag=True, help="Return at once.")
@json_option
@click.pass_obj
def command(session: Session, /, name: str, to: str, detach: bool) -> None:
    """Move the deployment NAME to another provider.

    The new copy is set up and serves before the old one stops. What a container wrote stays behind; a deployment with
    named volumes moves only if the label dockage.data=expendable says that they may.
    """
    before = kept.newest(session, name)
    of = session.client.post("deployments", name, "move", body={"to": to})
    if not detach:
        of = kept.settle(session, of, WAIT_SEC)
        kept.check_moved(of, before)
    session.show(of, kept.listing([of]))
