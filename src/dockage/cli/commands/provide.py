"""``dockage provide``: the same daemon, selling this machine."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from dockage.cli import format as show
from dockage.cli import process
from dockage.cli.client import Json
from dockage.cli.errors import UsageError
from dockage.cli.nodeargs import check, keep, node_options, overrides, run, wait_ready
from dockage.cli.options import CORES, PERCENT, SIZE, Command, json_option
from dockage.cli.session import Session
from dockage.cli.table import facts, table

MIB = 1 << 20
LINES = (
    ("cpu_hour", "core, used", "hour"),
    ("cpu_reserved_hour", "core, kept free", "hour"),
    ("memory_gib_hour", "GiB of memory, used", "hour"),
    ("memory_reserved_gib_hour", "GiB of memory, kept free", "hour"),
    ("disk_gib_hour", "GiB of disk, used", "hour"),
    ("net_in_gib", "GiB from the tenant", "GiB"),
    ("net_out_gib", "GiB to the tenant", "GiB"),
    ("internet_out_gib", "GiB to the internet", "GiB"),
    ("replica_out_gib", "GiB between own containers", "GiB"),
)
"""Fields of a tariff in words."""


@click.command(
    cls=Command,
    examples=(
        "dockage provide                                     # everything, at the preset `fair`",
        "dockage provide --price-preset cheap --cpus 2 --memory 4G --disk 50G --detach",
        "dockage provide --share 50% --save                  # and so at every start (`dockage service`)",
        "dockage provide --free-for 6f1c...e2                # your own machines for nothing, others pay",
        "dockage provide --share 50% --hours 22:00-07:00     # half of the machine, at night",
        "dockage provide --price-policy utilisation          # cheaper while idle, dearer when nearly full",
        "dockage provide --only-for own                      # machines of your own alone (`dockage link`), free",
        "dockage provide --free --only-for 6f1c...e2         # one other key, free",
        "dockage provide --gateway --zone example.net --public-ip 203.0.113.5 --ports 20000-20100",
    ),
)
@click.option(
    "--price-preset", type=click.Choice(["fair", "cheap", "free"]), help="Prices; fair if nothing is set."
)
@click.option(
    "--tariff",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Own prices: a TOML file of the fields of [provider.tariff], in msat.",
)
@click.option(
    "--price-policy",
    type=click.Choice(["fixed", "utilisation", "pegged"]),
    help="How prices move for new leases; pegged needs [peg] in config.toml or --set peg.reference=... .",
)
@click.option(
    "--free-for", multiple=True, metavar="KEY", help="This node pays nothing (see `dockage id` there)."
)
@click.option("--free", is_flag=True, help="The same as --price-preset free.")
@click.option("--cpus", type=CORES, help="How many cores to sell; all if nothing is set.")
@click.option("--memory", type=SIZE, help="How much memory; three quarters if not set.")
@click.option("--disk", type=SIZE, help="How much disk; half of what is free if not set.")
@click.option("--share", type=PERCENT, metavar="PERCENT", help="Sell so much of each of the three.")
@click.option(
    "--hours",
    metavar="FROM-TO",
    help="Only then, as 22:00-07:00; leases end with them, and tenants are told before.",
)
@click.option("--time-zone", metavar="NAME", help="Of the hours, as Europe/Berlin; the machine's if not set.")
@click.option(
    "--min-price",
    type=click.IntRange(0),
    metavar="SAT",
    help="The least that a lease must cost per hour at most.",
)
@click.option("--block", multiple=True, metavar="KEY", help="This node may not rent.")
@click.option("--region", help="The region to be listed in.")
@click.option(
    "--only-for",
    multiple=True,
    metavar="KEY",
    help="Only this node may rent (see `dockage id` there); own: your linked ones.",
)
@click.option("--gateway", is_flag=True, help="Sell names and ports of this machine, instead of containers.")
@click.option("--zone", metavar="DOMAIN", help="A gateway's: a domain whose names point to this machine.")
@click.option("--public-ip", multiple=True, metavar="IP", help="A gateway's: an address of this machine.")
@click.option("--ports", metavar="FIRST-LAST", help="A gateway's: TCP and UDP ports for rent.")
@click.option(
    "--dns", metavar="IP:PORT", help="A gateway's: answer for the zone's names there, as 0.0.0.0:53."
)
@click.option("--engine", metavar="SOCKET", help="The Docker Engine that runs the containers of strangers.")
@node_options
@click.option("-d", "--detach", is_flag=True, help="Run it in the background; its log is HOME/daemon.log.")
@json_option
@click.pass_obj
def command(session: Session, /, detach: bool, save: bool, **flags: Any) -> None:
    """Sell this machine.

    Runs the node of this home with its provider on, and shows what is sold once the market has the offer.
    """
    wanted = overrides(flags)
    gateway = _gateway(**{name: flags.pop(name) for name in ("gateway", "zone", "public_ip", "ports", "dns")})
    wanted["gateway"] = {**wanted.get("gateway", {}), **gateway}
    wanted["provider"] = {**wanted.get("provider", {}), **_selling(**flags)}
    process.refuse_second(
        session.home,
        "stop it with `dockage daemon --stop` and run this again, or sell from another --home. "
        "Its leases outlive the restart",
    )
    check(session.home, wanted)
    keep(session, wanted, save=save)
    if detach:
        process.start(session, wanted)
        tell(session, wait_ready(session, _is_listed) or session.client.get("status"))
    else:
        run(session, wanted, _is_listed, lambda status: tell(session, status))


def _selling(
    price_preset: str | None,
    tariff: Path | None,
    price_policy: str | None,
    free_for: tuple[str, ...],
    free: bool,
    cpus: int | None,
    memory: int | None,
    disk: int | None,
    share: int | None,
    hours: str | None,
    time_zone: str | None,
    min_price: int | None,
    block: tuple[str, ...],
    region: str | None,
    only_for: tuple[str, ...],
    engine: str | None,
) -> dict[str, Any]:
    if sum((free, price_preset is not None, tariff is not None)) > 1:
        raise click.UsageError("--free, --price-preset and --tariff exclude each other")
    given = {
        "price_preset": "free" if free else price_preset,
        "tariff": _read_tariff(tariff) if tariff else None,
        "price_policy": price_policy,
        "free_for": list(free_for) or None,
        "cpu_milli": cpus,
        "memory_mib": memory and max(1, memory // MIB),
        "disk_mib": disk and max(1, disk // MIB),
        "share_percent": share,
        "hours": hours,
        "time_zone": time_zone,
        "min_sat_hour": min_price,
        "blocked": list(block) or None,
        "region": region,
        "only_for": list(only_for) or None,
        "engine": engine,
    }
    return {"enabled": True, **{name: value for name, value in given.items() if value is not None}}


def _gateway(
    gateway: bool, zone: str | None, public_ip: tuple[str, ...], ports: str | None, dns: str | None
) -> dict[str, Any]:
    given = {
        "enabled": gateway or None,
        "zone": zone,
        "public": list(public_ip) or None,
        "ports": ports,
        "dns": dns,
    }
    return {name: value for name, value in given.items() if value is not None}


def _read_tariff(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise UsageError("config.unreadable", f"{path}: {error}") from None


def _is_listed(status: Json) -> bool:
    provider = status["provider"]
    return provider is not None and (provider["published_at"] > 0 or provider["only_own"])


GATEWAY = "names and ports of this gateway: `dockage gateway` shows who has them"


# -- what is shown -----------------------------------------------------------------------------------
def tell(session: Session, status: Json) -> None:
    answer = {**status, "machine": session.client.get("machine")}
    session.show(answer, summary(answer))


def summary(status: Json) -> str:
    provider = status["provider"]
    described = facts(
        [
            ("provider", status["node"]),
            ("for sale", GATEWAY if _is_gateway(status) else _resources(provider["capacity"])),
            ("region", provider["region"]),
            ("machine", _machine(status["machine"])),
            ("addresses", ", ".join(status["addresses"])),
            ("prices", _policy(provider)),
            ("free for", ", ".join(show.short(key) for key in provider["free_for"])),
            ("market", _market(provider["published_at"]) if not provider["only_own"] else ""),
            ("only for", _own(status["machines"]) if provider["only_own"] else ""),
        ]
    )
    warnings = [f"warning: {text}" for text in status["machine"]["warnings"]]
    price = "for free" if provider["only_own"] else prices(provider["tariff"])
    return "\n\n".join([described, price, *warnings])


def _own(machines: int) -> str:
    if not machines:
        return "your own machines, of which none is linked yet: `dockage link`"
    return f"your own machines, of which {machines} linked"


def prices(tariff: Json) -> str:
    if not any(tariff.values()):
        return "for free"
    rows = [(what, f"{show.sat(tariff[f'{name}_msat'])} per {unit}") for name, what, unit in LINES]
    return table(("ONE", "PRICE"), [row for row in rows if not row[1].startswith("0 sat")])


def _policy(provider: Json) -> str:
    if provider["unpriced"]:
        return f"none now, nothing new is sold: {provider['unpriced']['text']}"
    return "" if provider["price_policy"] == "fixed" else f"{provider['price_policy']}, now as below"


def _resources(of: Json) -> str:
    return (
        f"{show.in_cores(of['cpu_milli'])}, {show.size(of['memory_bytes'])} memory, "
        f"{show.size(of['disk_bytes'])} disk"
    )


def _is_gateway(status: Json) -> bool:
    """It runs nobody's containers."""
    return not status["machine"]["cgroup_version"]


def _machine(machine: Json) -> str:
    if not machine["cgroup_version"]:
        return str(machine["architecture"])
    return (
        f"{machine['architecture']}, Docker {machine['engine_version']}, "
        f"cgroup v{machine['cgroup_version']} ({machine['cgroup_driver']})"
    )


def _market(stored_at: int) -> str:
    if stored_at:
        return f"{show.plural(stored_at, 'market node')} took the offer"
    return "no market node has taken the offer yet: is a --seed given and reachable? It is tried again"
