"""``dockage context``: a docker context, so that plain ``docker`` reaches the market."""

from __future__ import annotations

import click

from dockage.cli import docker
from dockage.cli.commands.up import tenant_socket
from dockage.cli.errors import NotRunning, UsageError
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session


@click.command(
    cls=Command,
    examples=("dockage context", "docker --context dockage compose up -d", "dockage context --use"),
)
@click.option("--name", default="dockage", show_default=True, help="How docker shall call it.")
@click.option("--use", is_flag=True, help="Make it docker's current context, too.")
@json_option
@click.pass_obj
def command(session: Session, name: str, use: bool) -> None:
    """Make a docker context for this home, or bring it up to date."""
    env, host = docker.environment(), f"unix://{_socket(session)}"
    verb = "update" if name in docker.ask(["context", "ls", "-q"], env).split() else "create"
    description = f"dockage at {session.home}"
    docker.ask(["context", verb, name, "--description", description, "--docker", f"host={host}"], env)
    if use:
        docker.ask(["context", "use", name], env)
    hint = "docker ps" if use else f"docker --context {name} ps"
    session.show(
        {"context": name, "host": host, "current": use}, f"the context {name} is {host}; try: {hint}"
    )


def _socket(session: Session) -> str:
    """As the daemon has it, or as its configuration says."""
    try:
        return tenant_socket(session.client.get("status"))
    except NotRunning:
        from dockage.daemon import loading

        tenant = loading.load(session.home).tenant
        if not tenant.enabled:
            raise UsageError("tenant.off", "this node does not rent: set tenant.enabled = true") from None
        return str(session.home / tenant.socket)
