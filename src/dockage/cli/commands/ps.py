"""``dockage ps``: the containers, and the leases they run in."""

from __future__ import annotations

from typing import Any

import click

from dockage.cli import compose, docker, kept, leases, process, public
from dockage.cli.client import Json
from dockage.cli.commands.up import tenant_socket
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session


@click.command(cls=Command, examples=("dockage ps", "dockage ps -p shop", "dockage ps --json"))
@compose.file_options
@json_option
@click.pass_obj
def command(session: Session, /, **which: Any) -> None:
    """Show the containers, the leases they run in, the replicas of what is kept up, and what is public.

    With -f or -p those of a compose project, else all.
    """
    socket = tenant_socket(process.ensure(session))
    files = compose.files(**which)
    found: list[Json] = [x for x in session.client.get("spend")["leases"] if x["state"] != "ended"]
    kept_ones = session.client.get("deployments")["deployments"]
    outside: list[Json] = session.client.get("public")["deployments"]
    if session.json:
        listed = compose.containers(files, socket) if files.words else _all(socket)
        session.show({"containers": listed, "leases": found, "deployments": kept_ones, "public": outside}, "")
        return
    env = docker.environment(socket)
    code = files.run("ps", "-a", socket=socket) if files.words else docker.run(["ps", "-a"], env)
    if code:
        raise click.exceptions.Exit(1)
    listing = leases.listing(found) if found else "no lease"
    shown = ["", kept.listing(kept_ones)] if kept_ones else []
    shown += ["", public.listing(outside)] if outside else []
    session.show(None, "\n".join(["", listing, *leases.reasons(found), *shown]))


def _all(socket: str) -> list[Json]:
    text = docker.ask(["ps", "-a", "--format", "{{json .}}"], docker.environment(socket))
    return compose.lines(text)
