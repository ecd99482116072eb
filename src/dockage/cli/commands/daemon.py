"""``dockage daemon``: run this home's node, here or in the background; stop it."""

from __future__ import annotations

from typing import Any

import click

from dockage import __version__
from dockage.cli import format as show
from dockage.cli import process
from dockage.cli.client import Json
from dockage.cli.leases import why
from dockage.cli.nodeargs import check, keep, node_options, overrides, run
from dockage.cli.options import Command, json_option
from dockage.cli.session import Session
from dockage.cli.table import facts


@click.command(
    cls=Command,
    examples=(
        "dockage daemon --detach",
        "dockage daemon --bind 0.0.0.0:4711 --market     # a node that others begin with",
        "dockage daemon --seed 6f1c...e2@203.0.113.7:4711",
        "dockage daemon --stop",
    ),
)
@node_options
@click.option("-d", "--detach", is_flag=True, help="Run it in the background; its log is HOME/daemon.log.")
@click.option(
    "--stop", is_flag=True, help="Stop the daemon of this home. Its leases go on until they are unpaid."
)
@json_option
@click.pass_obj
def command(session: Session, /, detach: bool, stop: bool, save: bool, **flags: Any) -> None:
    """Run this home's node.

    The flags override config.toml in the home. Containers you rent and sell go on while it restarts.
    """
    if stop:
        pid = process.stop(session.home)
        session.show({"stopped": pid}, f"stopped (process {pid})")
        return
    wanted = overrides(flags)
    process.refuse_second(session.home, "stop it with `dockage daemon --stop`, or choose another --home")
    check(session.home, wanted)
    keep(session, wanted, save=save)
    if detach:
        tell(session, process.start(session, wanted))
    else:
        run(session, wanted, lambda _: True, lambda status: tell(session, status))


def tell(session: Session, status: Json) -> None:
    session.show(status, summary(status))


def summary(status: Json) -> str:
    tenant = status["tenant"]
    return facts(
        [
            ("node", status["node"]),
            ("home", status["home"]),
            ("addresses", ", ".join(status["addresses"])),
            ("relay", relay(status.get("paid_relay")) or status["relay"]),
            ("market", _market(status)),
            ("sells", _sells(status["provider"])),
            ("machines", f"{status['machines']} of your own linked" if status["machines"] else ""),
            ("docker", f"export DOCKER_HOST=unix://{tenant['socket']}" if tenant else ""),
            ("bitcoin", bitcoin(status["bitcoin"])),
            ("up for", show.duration(status["uptime_sec"])),
            ("version", _version(status["version"])),
        ]
    )


def _version(runs: str) -> str:
    """An upgrade is one once the node was started anew."""
    older = f"; this program is {__version__}: restart the daemon" if runs != __version__ else ""
    return f"dockage {runs}{older}"


def _market(status: Json) -> str:
    found = status["market"]
    role = "stores and answers" if status["market_node"] else ""
    if found is None or (status["market_node"] and not found["nodes"]):
        return role
    if found["why"]:
        return str(found["why"])
    names = {"book": "nodes met before", "config": "seeds", "machines": "linked machines"}
    names |= {"lan": "the local network", "mainline": "the BitTorrent DHT"}
    by = f", found by {names[found['found_by']]}" if found["found_by"] else ""
    return f"{show.plural(found['nodes'], 'node')}{by}" + (f"; {role}" if role else "")


def relay(paid: Json | None) -> str:
    """Of the relay that this node pays for, or why it has none; "" if there is nothing to say."""
    if paid is None:
        return ""
    if paid["trouble"] and not paid["lease"]:
        return why(paid["trouble"])
    if not paid["lease"]:
        return ""
    passed = show.size(paid["sent_bytes"] + paid["received_bytes"])
    spent = f"{show.sat(paid['spent_msat'])} of {paid['budget_sat']:,} sat today"
    return f"{paid['url']}, paid: {passed} passed on, {spent}"


def _sells(provider: Json | None) -> str:
    if provider is None:
        return ""
    free = provider["free"]
    return (
        f"{show.in_cores(free['cpu_milli'])}, {show.size(free['memory_bytes'])} memory, "
        f"{show.size(free['disk_bytes'])} disk free in {provider['region']}"
    )


def bitcoin(chain: Json | None) -> str:
    if chain is None:
        return "no wallet: free offers only"
    silent = f" (for {show.duration(chain['silent_sec'])})" if chain["silent_sec"] else ""
    return f"{chain['network']}, {chain['error'] + silent or 'block ' + format(chain['height'], ',')}"
