"""``dockage gateway``: what this gateway serves, and what its operator wants it to serve no more."""

from __future__ import annotations

import click

from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.options import Group, json_option
from dockage.cli.session import Session
from dockage.cli.table import table


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=(
        "dockage gateway                          # what is served, for whom",
        "dockage gateway drop shop.example.com    # after a complaint: this name is served no more",
        "dockage gateway drop 6f1c09e2            # nor anything of this tenant",
        "dockage gateway allow shop.example.com   # take it back",
    ),
)
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show what this gateway serves.

    A gateway is a node that sells names and ports instead of containers: `dockage provide --gateway`.
    """
    session = ctx.find_object(Session)
    if ctx.invoked_subcommand is None and session is not None:
        answer = session.client.get("gateway")
        session.show(answer, listing(answer))


@command.command(examples=("dockage gateway drop shop.example.com", "dockage gateway drop 6f1c09e2"))
@click.argument("name", metavar="NAME|KEY")
@json_option
@click.pass_obj
def drop(session: Session, /, name: str) -> None:
    """Serve a host name, or a tenant, no more.

    At once, and until `allow`, also after a restart. The tenant is told so when it publishes again.
    """
    answer = session.client.post("gateway", "drop", body={"name": name})
    cut = show.plural(len(answer["leases"]), "deployment")
    session.show(answer, f"{answer['name']} is served no more; {cut} cut off")


@command.command(examples=("dockage gateway allow shop.example.com",))
@click.argument("name", metavar="NAME|KEY")
@json_option
@click.pass_obj
def allow(session: Session, /, name: str) -> None:
    """Take a drop back: its tenant may publish again."""
    answer = session.client.post("gateway", "allow", body={"name": name})
    session.show(answer, f"{answer['name']} may be published again")


def listing(answer: Json) -> str:
    head = ("DEPLOYMENT", "TENANT", "NAMES AND PORTS", "REPLICAS", "NOW", "REQUESTS")
    rows = [_row(each) for each in answer["deployments"]]
    shown = table(head, rows, right=("NOW", "REQUESTS")) if rows else "nothing is published here yet"
    dropped = ", ".join(answer["dropped"])
    return f"{shown}\n\ndropped: {dropped}" if dropped else shown


def _row(of: Json) -> tuple[str, ...]:
    return (
        of["name"],
        show.short(of["tenant"]),
        ", ".join([*of["hosts"], *of["public_ports"]]),
        f"{of['replicas_up']} of {of['replicas']}",
        str(of["in_flight"]),
        str(of["requests"]),
    )
