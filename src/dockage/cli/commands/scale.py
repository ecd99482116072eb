"""``dockage scale``: so many replicas of a deployment, each at another provider."""

from __future__ import annotations

import click

from dockage.cli import complete, kept
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session

WAIT_SEC = 300.0


@click.command(
    cls=Command,
    examples=(
        "dockage scale shop 3            # three copies, at three providers",
        "dockage scale shop 1 --detach   # do not wait for it",
    ),
)
@click.argument("name", shell_complete=complete.of(complete.deployments))
@click.argument("replicas", type=click.IntRange(0, 32))
@click.option("-d", "--detach", is_flag=True, help="Return at once.")
@json_option
@click.pass_obj
def command(session: Session, /, name: str, replicas: int, detach: bool) -> None:
    """Run REPLICAS whole copies of the deployment NAME.

    Each is at another operator and behind another line; one that is lost is replaced. It counts until the label
    dockage.replicas, or an hour of dockage.schedule, says something else. 0 stops all of it; its lease stays, at the
    price of a standby, and it starts there again.
    """
    of = session.client.post("deployments", name, "scale", body={"replicas": replicas})
    if not detach:
        of = kept.settle(session, of, WAIT_SEC)
    session.show(of, kept.listing([of]))
