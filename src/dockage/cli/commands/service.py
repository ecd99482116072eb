"""``dockage service``: this home's node as a service of the machine, which comes back after a reboot or a crash."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import click

from dockage.cli import process, systemd, unit
from dockage.cli.client import Json, check_home
from dockage.cli.errors import UsageError
from dockage.cli.options import Group, json_option
from dockage.cli.session import Session
from dockage.cli.systemd import Manager
from dockage.cli.table import facts

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")

name_option = click.option(
    "--name", metavar="NAME", help="Of the unit; by default `dockage`, or after --home."
)
root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Of a machine that does not run now, such as an image being made; nothing is started.",
)


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=(
        "dockage provide --price-preset fair --seed KEY@203.0.113.7:4711 --save --detach",
        "dockage daemon --stop                  # what runs now makes room",
        "dockage service install                # at every boot, with the settings of config.toml",
        "dockage service status",
        "journalctl -u dockage -f               # its log",
        "dockage service remove",
    ),
)
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """Run this home's node at every boot.

    A systemd unit: of the machine for root, of the user for anybody else. How the node runs is read from config.toml at
    each start, where `dockage provide ... --save` and `dockage daemon ... --save` write it. Alone it shows the status.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(status, name=None, root=None)


@command.command("install", examples=("dockage service install", "dockage --home=/srv/node service install"))
@name_option
@root_option
@json_option
@click.pass_obj
def install(session: Session, name: str | None, root: Path | None) -> None:
    """Write the unit and start it; again after an upgrade that says so, or to start it anew."""
    home, of, name = check_home(session.home), systemd.manager(root), _name(session, name)
    systemd.refuse_without(of, home, sys.executable)
    sells = _checked(home, of)
    file = of.file(name)
    _refuse_anothers(file, home, name)
    if root is None:
        _refuse_other_daemon(home, of, name)
    _write(file, unit.text(home, sys.executable, system=of.system))
    if root is None:
        of.do("daemon-reload")
    of.do("enable", f"{name}.service")
    if root is None:
        session.say(f"starting {name} ...")
        of.start(name)
    _tell(session, of, name, [_does(sells), *([_linger(of)] if not of.system else [])])


@command.command("status", examples=("dockage service status", "dockage service status --json"))
@name_option
@root_option
@json_option
@click.pass_obj
def status(session: Session, name: str | None, root: Path | None) -> None:
    """Show whether the node is a service, and how it is."""
    _tell(session, systemd.manager(root), _installed(session, name, root), [])


@command.command("remove", examples=("dockage service remove",))
@name_option
@root_option
@json_option
@click.pass_obj
def remove(session: Session, name: str | None, root: Path | None) -> None:
    """Stop the node and take the unit away. The home stays: identity, wallet, settings.

    First `dockage drain` what it sells, and `dockage down` what it rents: leases end when nobody pays or bills them.
    """
    of, name = systemd.manager(root), _installed(session, name, root)
    systemd.refuse_without(of, session.home, sys.executable)
    of.do("disable", *(["--now"] if root is None else []), f"{name}.service", limit=systemd.STOP_SEC)
    file = of.file(name)
    file.unlink(missing_ok=True)
    if root is None:
        of.do("daemon-reload")
    session.show({"unit": name, "removed": str(file)}, f"{name} is no service any more; {session.home} stays")


# -- what is refused ---------------------------------------------------------------------------------
def _name(session: Session, name: str | None) -> str:
    if name is not None and not NAME.fullmatch(name):
        raise click.UsageError(f"--name {name!r}: letters, digits, - and _")
    return name or unit.name_for(session.home)


def _installed(session: Session, name: str | None, root: Path | None) -> str:
    name = _name(session, name)
    file = systemd.manager(root).file(name)
    if not file.exists():
        raise UsageError("service.none", f"there is no {file}: `dockage service install` makes it")
    _refuse_anothers(file, session.home, name)
    return name


def _checked(home: Path, of: Manager) -> bool:
    """Whether the node sells containers. Raises UsageError for settings that it could not start with."""
    from dockage.daemon import loading

    loaded = loading.load(home)
    sells = loaded.provider.enabled
    if sells and not loaded.gateway.enabled and not of.system:
        raise UsageError(
            "service.not-root", "selling a machine needs root: run this as root, with its own --home"
        )
    return sells


def _refuse_anothers(file: Path, home: Path, name: str) -> None:
    whose = unit.home_of(file.read_text(errors="replace")) if file.exists() else str(home)
    if whose != str(home):
        raise UsageError(
            "service.taken",
            f"{file} is of {f'the node at {whose}' if whose else 'something else'}: choose another --name than {name}",
        )


def _refuse_other_daemon(home: Path, of: Manager, name: str) -> None:
    pid = process.pid_of(home)
    if pid is not None and of.show(name).get("MainPID") != str(pid):
        raise UsageError(
            "home.in-use",
            f"a daemon already runs at {home} (process {pid}): stop it with `dockage daemon --stop` and run this "
            "again. Its leases outlive the restart",
        )


# -- what is done and shown --------------------------------------------------------------------------
def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(text)
    part.chmod(0o644)
    part.replace(file)


def _does(sells: bool) -> str:
    if sells:
        return ""
    return (
        "It does not sell this machine: config.toml does not say so (`dockage provide ... --save` writes it)."
    )


def _linger(of: Manager) -> str:
    if of.linger():
        return "It runs whether you are logged in or not (loginctl enable-linger)."
    return f"It runs only while you are logged in, until root says: loginctl enable-linger {os.environ.get('USER', '')}"


def _tell(session: Session, of: Manager, name: str, remarks: list[str]) -> None:
    answer: Json = {"unit": name, "file": str(of.file(name)), "home": str(session.home), "log": of.log(name)}
    if of.root is None and of.works:
        shown = of.show(name)
        answer |= {
            "boot": shown.get("UnitFileState", ""),
            "state": shown.get("ActiveState", ""),
            "detail": shown.get("SubState", ""),
            "says": shown.get("StatusText", ""),
            "pid": int(shown.get("MainPID") or 0),
            "restarts": int(shown.get("NRestarts") or 0),
            "result": shown.get("Result", ""),
        }
    session.show(answer, "\n".join([summary(answer), *filter(None, remarks)]))


def summary(answer: Json) -> str:
    state = ""
    if "state" in answer:
        failed = "" if answer["result"] in ("", "success") else f", the last time by {answer['result']}"
        said = f": {answer['says']}" if answer["says"] else ""
        state = f"{answer['state']} ({answer['detail']}{failed}){said}"
    return facts(
        [
            ("service", answer["unit"]),
            ("unit", answer["file"]),
            ("home", answer["home"]),
            ("at boot", answer.get("boot", "")),
            ("state", state),
            ("process", str(answer["pid"]) if answer.get("pid") else ""),
            ("restarts", str(answer["restarts"]) if answer.get("restarts") else ""),
            ("log", answer["log"]),
        ]
    )
