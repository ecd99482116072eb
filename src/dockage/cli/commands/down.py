"""``dockage down``: ``docker compose down``, and what it has cost."""

from __future__ import annotations

import json
from typing import Any

import click

from dockage.cli import compose, docker, process
from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.commands.up import tenant_socket
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session

END_SEC = 30.0
"""A lease is kept for some seconds after its last container (tenant.linger_sec), and then ended with its provider."""


@click.command(
    cls=Command,
    examples=("dockage down", "dockage down -v          # with its volumes", "dockage down -p shop"),
)
@compose.file_options
@click.option(
    "-v", "--volumes", is_flag=True, help="Remove its volumes, too. Without it they keep the lease."
)
@json_option
@click.pass_obj
def command(session: Session, /, volumes: bool, **which: Any) -> None:
    """Take a compose project down and show what it has cost."""
    files = compose.files(**which)
    name = which["project_name"] or str(json.loads(files.ask("config", "--format", "json"))["name"])
    socket = tenant_socket(process.ensure(session))
    before = _leases(session, name)
    code = files.run("down", *(["-v"] if volumes else []), socket=socket, quiet=session.json)
    if code:
        session.say(f"docker compose ended with {code}; what is left still runs and costs")
        raise click.exceptions.Exit(130 if code == 130 else 1)
    held = _volumes(name, socket)
    if not held:
        process.wait_until(lambda: all(x["state"] == "ended" for x in _leases(session, name)), END_SEC)
    ids = {x["lease"] for x in before if x["state"] != "ended"}
    leases = [x for x in _leases(session, name) if x["lease"] in ids]
    text = "\n".join([*map(_bill, leases), *_held(held)]) or f"{name} has no lease"
    session.show({"deployment": name, "leases": leases, "volumes": held}, text)


def _leases(session: Session, deployment: str) -> list[Json]:
    return [x for x in session.client.get("spend")["leases"] if x["deployment"] == deployment]


def _volumes(project: str, socket: str) -> list[str]:
    label = f"label=com.docker.compose.project={project}"
    return docker.ask(["volume", "ls", "-q", "--filter", label], docker.environment(socket)).split()


def _held(volumes: list[str]) -> list[str]:
    if not volumes:
        return []
    names = ", ".join(sorted(volumes))
    return [f"the lease goes on, because it holds {names}: `dockage down -v` gives it back, data and all"]


def _bill(lease: Json) -> str:
    return (
        f"lease {show.short(lease['lease'])} {lease['state']}: {show.sat(lease['due_msat'])} "
        f"for {show.duration(lease['running_sec'])}"
    )
