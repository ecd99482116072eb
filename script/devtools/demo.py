"""The demo: a web site on a stranger's machine, metered and paid every second, settled on a chain.

Everything is real and a process of its own: bitcoind (regtest), three market nodes, three providers, a
tenant, two Docker engines. Only the tariff is exaggerated, so that 20 seconds are worth far more than dust.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console  # noqa: E402
from rich.live import Live  # noqa: E402
from rich.table import Table  # noqa: E402

from devtools.localmarket import EXAGGERATION, LocalMarket, NodeProcess  # noqa: E402
from devtools.regtest import free_port  # noqa: E402
from devtools.shell import Failed, run, wait_until  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "examples" / "site" / "compose.yaml"
PRICES = {"ada": 100, "bob": 115, "eve": 140}
"""Providers, and their prices in percent of the demo tariff."""
TENANT_SAT = 1_000_000
LOAD_THREADS = 8

PAUSE_SECONDS = 0.015
"""Of each client between two requests: the channel of the demo must last."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    result: dict[str, Any] = {"ok": False}
    try:
        with engines() as (tenant_engine, provider_engine):
            with market(tenant_engine, provider_engine) as world:
                play(world, options, result)
    except Failed as error:
        console.print(f"[red]error:[/] {error}")
        result["error"] = str(error)
    except KeyboardInterrupt:
        console.print("\nstopped; everything is taken down again")
        result["error"] = "interrupted"
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["ok"] else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--keep", action="store_true", help="leave it all running until Ctrl-C")
    parser.add_argument("--seconds", type=int, default=20, help="how long to put load on the site")
    return parser.parse_args()


# -- the stage ---------------------------------------------------------------------------------------
@contextlib.contextmanager
def engines() -> Iterator[tuple[str, str]]:
    """Two Docker engines: the tenant's, with the site's base image, and the providers', without."""
    script = str(ROOT / "script" / "engines")
    try:
        with say("starting two Docker engines, the tenant's and the providers'"):
            run(script, "start", "tenant", "provider", seconds=150)
            images = str(ROOT / "script" / "images")
            run(images, "load", "tenant", "dockage/web:bookworm", "dockage/bitcoind:regtest", seconds=150)
        yield run(script, "socket", "tenant").strip(), run(script, "socket", "provider").strip()
    finally:
        with say("stopping the engines"):
            run(script, "stop", seconds=150)


@contextlib.contextmanager
def market(tenant_engine: str, provider_engine: str) -> Iterator[LocalMarket]:
    world = LocalMarket(tenant_engine, provider_engine, PRICES)
    try:
        with say("starting bitcoind, 3 market nodes, 3 providers and a tenant"):
            world.start()
        with say(f"giving the tenant {TENANT_SAT:,} sat (of no value: regtest)"):
            world.fund_tenant(TENANT_SAT)
        world.mine_every(1.0)
        yield world
    finally:
        with say("taking everything down"):
            world.close()


@contextlib.contextmanager
def say(what: str) -> Iterator[None]:
    began = time.monotonic()
    console.print(f"[dim]...[/] {what}", end="")
    try:
        yield
    finally:
        console.print(f" [dim]{time.monotonic() - began:.1f} s[/]")


# -- the play ----------------------------------------------------------------------------------------
def play(world: LocalMarket, options: argparse.Namespace, result: dict[str, Any]) -> None:
    before = balances(world)
    show_market(world, result)
    port = free_port()
    os.environ["SITE_PORT"] = str(port)
    build(world)
    deploy(world, port, result)
    put_load_on(world, port, options.seconds, result)
    if options.keep:
        console.print(f"\nThe site runs at http://127.0.0.1:{port}/  (Ctrl-C takes it all down)")
        keep(world)
    take_down(world, result)
    settle(world, before, result)


def show_market(world: LocalMarket, result: dict[str, Any]) -> None:
    offers = world.wait_for_offers(len(PRICES))
    result["offers_listed"] = len(offers)
    names = {node.key: name for name, node in world.providers.items()}
    table = Table(
        "provider", "key", "free", "worst case, sat/h", title="The market, for a container of 1 core, 512 MiB"
    )
    for offer in offers:
        free = offer["free"]
        room = f"{free['cpu_milli'] / 1000:g} cores, {free['memory_bytes'] >> 20} MiB"
        table.add_row(
            names[offer["provider"]], offer["provider"][:8], room, f"{offer['msat_hour_max'] // 1000:,}"
        )
    console.print(table)
    console.print(
        f"[dim]The tariff is {EXAGGERATION:,} times the fair one, so that seconds are worth more than dust.[/]"
    )


def build(world: LocalMarket) -> None:
    with say("docker compose build  (on the tenant's own engine)"):
        world.docker("compose", "-f", str(SITE), "build", seconds=120)


def deploy(world: LocalMarket, port: int, result: dict[str, Any]) -> None:
    console.print("\n[bold]$ docker compose up -d[/]    (DOCKER_HOST is the tenant's dockage socket)")
    began = time.monotonic()
    world.docker("compose", "-f", str(SITE), "up", "-d", "--no-build", "--pull", "never", seconds=120)
    if not wait_until(lambda: fetch(port) == 200, 30, 0.02):
        raise Failed(f"the site does not answer on port {port}")
    result["seconds_to_http_200"] = round(time.monotonic() - began, 3)
    lease = world.tenant.ask("GET", "/v1/spend")["leases"][-1]
    result["chosen_provider"] = lease["provider"]
    names = {node.key: name for name, node in world.providers.items()}
    console.print(
        f"http://127.0.0.1:{port}/ answers 200 after [bold]{result['seconds_to_http_200']:.1f} s[/]: provider "
        f"{names[lease['provider']]} found, channel opened and confirmed, image sent, container started"
    )
    console.print(
        world.docker(
            "ps", "--format", "{{.ID}}  {{.Image}}  {{.Status}}  {{.Ports}}  {{.Names}}"
        ).stdout.strip()
    )


def fetch(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        return response.status
    except OSError:
        return 0
    except http.client.HTTPException:
        return 0
    finally:
        connection.close()


class Load:
    """Clients that fetch as fast as they get answers."""

    def __init__(self, port: int) -> None:
        self._port, self._stop = port, threading.Event()
        self.done = self.failed = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(LOAD_THREADS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            if fetch(self._port) == 200:
                self.done += 1
            else:
                self.failed += 1
            self._stop.wait(PAUSE_SECONDS)


def put_load_on(world: LocalMarket, port: int, seconds: int, result: dict[str, Any]) -> None:
    console.print(f"\nload from {LOAD_THREADS} clients for {seconds} s:")
    with Load(port) as load, Live(console=console, refresh_per_second=4) as live:
        end = time.monotonic() + seconds
        last: dict[str, Any] | None = None
        while time.monotonic() < end:
            spend = world.tenant.ask("GET", "/v1/spend")
            channel = world.tenant.ask("GET", "/v1/channels")["channels"][-1]
            live.update(meter_table(spend["leases"][-1], channel, last, load.done))
            last = {"due": spend["leases"][-1]["due_msat"], "at": time.monotonic()}
            time.sleep(1)
    result["requests"], result["requests_failed"] = load.done, load.failed


def meter_table(
    lease: dict[str, Any], channel: dict[str, Any], last: dict[str, Any] | None, requests: int
) -> Table:
    used = lease["usage"]
    rate = 0
    if last is not None and time.monotonic() > last["at"]:
        rate = int((lease["due_msat"] - last["due"]) / (time.monotonic() - last["at"]) * 3.6)
    table = Table(
        "tick",
        "CPU",
        "memory",
        "disk",
        "bytes in / out",
        "rate now",
        "due",
        "paid",
        "channel left",
        "requests",
    )
    table.add_row(
        str(lease["ticks"]),
        f"{used['cpu_ns'] / 1e9:.2f} s",
        f"{lease['memory_bytes'] / 2**20:.1f} MiB",
        f"{lease['disk_bytes'] / 2**20:.1f} MiB",
        f"{used['net_in_bytes']:,} / {used['net_out_bytes']:,}",
        f"{rate:,} sat/h",
        f"{lease['due_msat'] / 1000:,.3f} sat",
        f"{channel['paid_sat']:,} sat",
        f"{channel['remaining_sat']:,} sat",
        f"{requests:,}",
    )
    return table


def keep(world: LocalMarket) -> None:
    console.print(f"DOCKER_HOST={world.tenant.docker_host}  DOCKAGE_HOME={world.tenant.home}")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


# -- the end -----------------------------------------------------------------------------------------
def take_down(world: LocalMarket, result: dict[str, Any]) -> None:
    console.print("\n[bold]$ docker compose down[/]")
    world.docker("compose", "-f", str(SITE), "down", seconds=60)

    def ended() -> bool:
        return all(lease["state"] == "ended" for lease in world.tenant.ask("GET", "/v1/spend")["leases"])

    if not wait_until(ended, 30, 0.1):
        raise Failed("the lease did not end within 30 s")
    lease = world.tenant.ask("GET", "/v1/spend")["leases"][-1]
    result["ticks"], result["usage"], result["due_msat"] = lease["ticks"], lease["usage"], lease["due_msat"]
    result["due_at_fair_msat"] = lease["due_at_fair_msat"]
    console.print(
        f"{lease['ticks']} ticks, {lease['due_msat'] / 1000:,.3f} sat due; the same usage at the [bold]fair[/] "
        f"preset: {lease['due_at_fair_msat'] / 1000:,.3f} sat"
    )
    for line, amount in lease["lines"].items():
        if amount:
            console.print(f"  {line.removesuffix('_msat'):<16} {amount / 1000:>12,.3f} sat")


def settle(world: LocalMarket, before: dict[str, int], result: dict[str, Any]) -> None:
    """All channels close (one that runs low has a successor); what the two wallets gained and lost must be what was
    signed, to the satoshi."""
    with say("closing what channels there are, and waiting for the chain"):
        for each in channels(world.tenant).values():
            world.tenant.ask("POST", f"/v1/channels/{each['channel']}/close")
        if not wait_until(lambda: is_settled(world), 60, 0.2):
            raise Failed("the close was not confirmed within 60 s")
    world.stop_mining()
    world.chain.mine(1)
    provider = next(n for n in world.providers.values() if n.key == result["chosen_provider"])
    spent, earned = channels(world.tenant), channels(provider)
    after = balances(world)
    fees = {
        "funding": sum(c["funding_fee_sat"] for c in spent.values()),
        "closing": sum(c["closing_fee_sat"] for c in earned.values() if c["paid_sat"]),
        "giving back": sum(c["closing_fee_sat"] for c in earned.values() if not c["paid_sat"]),
    }
    paid = sum(c["paid_sat"] for c in earned.values())
    result |= {
        "channels": len(earned),
        "paid_sat": paid,
        "settled_sat": sum(c["paid_sat"] for c in earned.values() if c["settled"]),
        "fees_sat": sum(fees.values()),
        "tenant_balance_delta_sat": after["tenant"] - before["tenant"],
        "provider_balance_delta_sat": after[provider.home.name] - before[provider.home.name],
        "funding_txid": next(iter(earned.values()))["funding_txid"],
        "closing_txid": next(iter(earned.values()))["closing_txid"],
    }
    problems = audit(result, fees, sum(c["paid_sat"] for c in spent.values()))
    result["ok"] = not problems
    show_settlement(result, fees, problems)


def channels(node: NodeProcess) -> dict[str, dict[str, Any]]:
    """By their ids, oldest first."""
    return {c["channel"]: c for c in node.ask("GET", "/v1/channels")["channels"]}


def is_settled(world: LocalMarket) -> bool:
    sides = [world.tenant, *world.providers.values()]
    shown = [c for node in sides for c in channels(node).values()]
    return bool(shown) and all(c["settled"] for c in shown)


def balances(world: LocalMarket) -> dict[str, int]:
    for name in PRICES:  # a wallet is made when it is first asked something
        world.providers[name].ask("GET", "/v1/wallet")
    return {name: world.chain.balance(name) for name in ("tenant", *PRICES)}


def audit(result: dict[str, Any], fees: dict[str, int], tenant_paid: int) -> list[str]:
    """What does not add up. The balances are bitcoind's own."""
    checks = {
        "the tenant lost what it paid and its fees": result["tenant_balance_delta_sat"]
        == -result["paid_sat"] - fees["funding"] - fees["giving back"],
        "the provider gained what it was paid less the closing fee": result["provider_balance_delta_sat"]
        == result["paid_sat"] - fees["closing"],
        "both sides agree on what was paid": result["paid_sat"] == tenant_paid,
        "what is paid is what was due, in whole satoshis": result["paid_sat"] == result["due_msat"] // 1000,
        "it was worth more than dust": result["paid_sat"] > 1000,
        "no request failed": result["requests_failed"] == 0,
    }
    return [name for name, holds in checks.items() if not holds]


def show_settlement(result: dict[str, Any], fees: dict[str, int], problems: list[str]) -> None:
    table = Table("", "sat", title="Settlement, by bitcoind's own balances")
    table.add_row("tenant's balance", f"{result['tenant_balance_delta_sat']:+,}")
    table.add_row("provider's balance", f"{result['provider_balance_delta_sat']:+,}")
    table.add_row("fees of funding", f"{fees['funding']:,}")
    table.add_row("fees of closing", f"{fees['closing']:,}")
    if fees["giving back"]:
        table.add_row("fees of giving back what was not used", f"{fees['giving back']:,}")
    total = result["tenant_balance_delta_sat"] + result["provider_balance_delta_sat"] + sum(fees.values())
    table.add_row("[bold]sum[/]", f"[bold]{total:,}[/]")
    console.print(table)
    console.print(f"funding {result['funding_txid']}\nclosing {result['closing_txid']}")
    if problems:
        console.print("[red]It does not add up:[/] not true that " + "; nor that ".join(problems))
    else:
        console.print("[green]The tenant's spend is the provider's income and the fees, to the satoshi.[/]")


if __name__ == "__main__":
    sys.exit(main())
