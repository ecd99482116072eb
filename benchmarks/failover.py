"""How long until a service answers again, and what of its requests is lost; Docker Swarm cut in the same run.

    script/bench failover [--json FILE] [--rounds N] [--requests N] [--only PART ...]

failover_p50_s, failover_p95_s  one replica with a standby, its provider lost: in turn its daemon is killed (SIGKILL)
                                and falls silent (SIGSTOP), which from outside is a line that was cut; killed_ and
                                silent_ are those alone, phases_s the steps on the way
crash_p50_s, crash_p95_s        only the container's process dies; its engine starts it again (--restart=always);
                                plain_crash_: the same on a plain engine of this machine
swarm_p50_s, swarm_p95_s        three nodes of Docker Swarm, the one that serves cut off (benchmarks/failover_swarm.py)
failed_requests                 two replicas behind a gateway, --requests GETs at 200/s, a provider killed half-way
drain_failed                    the same, a provider drained half-way (dockage drain)
gateway_rps, bare_rps           requests a second through a gateway, and through Caddy alone (benchmarks/gateway.py)

Each time counts from the fault until a request that began after it is answered. Parts: crash lost requests swarm
gateway. Swarm runs beside lost and requests, so that all see the same machine; it waits far more than it works, but its
three engines would have a share in how long a container takes to start. Twenty rounds take some fifteen minutes on an
idle machine. What was measured before a part fails is shown and written.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchlab import ROOT, Failed, LocalMarket, run
from failover_public import Public
from failover_site import Site

import gateway

PARTS = ("crash", "lost", "requests", "swarm", "gateway")
SWARM_SECONDS = 120
"""For its start, and for each cut."""
BEGUN = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument(
        "--rounds", type=int, default=3, help="crashes, losses and Swarm's cuts, 45 s together (3)"
    )
    parser.add_argument("--requests", type=int, default=10_000, help="under load, twice (10,000)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--engines", nargs=2, metavar=("TENANT", "PROVIDER"), required=True, help="sockets")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    try:
        measure(options, figures)
    finally:
        figures["load"] = f"{os.getloadavg()[0]:.1f}"
        figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
        for name, value in figures.items():
            print(f"{name:<16} {value}")
        if options.json:
            Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Fills *figures* as it goes."""
    parts = {*options.only}
    with ExitStack() as stack:
        if {"crash", "lost", "requests"} & parts:
            world = stack.enter_context(market(*options.engines))
        if "crash" in parts:
            crashes(Site("crash", world, options.engines[0], progress), options.rounds, figures)
        wait_for_swarm: Callable[[], list[float]] = list
        if "swarm" in parts:
            wait_for_swarm = stack.enter_context(swarm(options.engines[0], options.rounds))
        if "lost" in parts:
            losses(Site("loss", world, options.engines[0], progress), options.rounds, figures)
        if "requests" in parts:
            figures |= Public(world, progress).figures(options.requests)
        figures |= seconds("swarm", wait_for_swarm())
    if "gateway" in parts:
        figures |= throughput()


def crashes(site: Site, rounds: int, figures: dict[str, Any]) -> None:
    ours, plain = list[float](), list[float]()
    with site.up(plain=True):
        for number in range(rounds):
            progress(f"crash {number + 1}/{rounds}")
            for each, took in zip((ours, plain), site.crashed(), strict=True):
                each.append(took)
            figures |= seconds("crash", ours) | seconds("plain_crash", plain)


def losses(site: Site, rounds: int, figures: dict[str, Any]) -> None:
    lost = list[float]()
    with site.up():
        for number in range(rounds):
            progress(f"loss {number + 1}/{rounds}")
            lost.append(site.lost(silent=bool(number % 2)))
            figures |= seconds("failover", lost)
            figures |= seconds("killed", lost[::2]) | seconds("silent", lost[1::2])
            figures |= {"phases_s": site.phases()}


def throughput() -> dict[str, Any]:
    progress("a gateway beside a bare proxy")
    rates = gateway.measure(10.0)
    names = ("gateway_rps", "bare_rps", "gateway_of_bare", "added_p50_ms")
    return {name: rates[name] for name in names}


@contextmanager
def market(tenant_engine: str, provider_engine: str) -> Iterator[LocalMarket]:
    progress("a market of three providers")
    prices = {"ada": 1, "bob": 1, "cal": 1}
    world = LocalMarket(tenant_engine, provider_engine, prices, channel_sat=500_000)
    try:
        world.start()
        world.fund_tenant(10_000_000)
        world.mine_every(1.0)
        world.wait_for_offers(3)
        yield world
    finally:
        world.close()


@contextmanager
def swarm(engine: str, runs: int) -> Iterator[Callable[[], list[float]]]:
    """What it is given to wait with brings the seconds of each cut. The sandbox takes all of it down when it ends."""
    progress("three nodes of Docker Swarm")
    with tempfile.TemporaryDirectory(prefix="dk-swarm-") as folder:
        image = Path(folder) / "image.tar"
        run("docker", "--host", f"unix://{engine}", "save", f"--output={image}", "dockage/base:bookworm")
        script = ROOT / "benchmarks/failover_swarm.py"
        command = [ROOT / "script/sandbox", sys.executable, script, f"--image={image}", f"--folder={folder}"]
        made = subprocess.Popen([*command, f"--runs={runs}"], stdout=subprocess.PIPE, text=True)

        def wait() -> list[float]:
            progress("waiting for the swarm")
            out, _ = made.communicate(timeout=SWARM_SECONDS * (runs + 1))
            if made.returncode:
                raise Failed("the swarm could not be measured: what is above says why")
            return [float(line) for line in out.split()]

        try:
            yield wait
        finally:
            made.terminate()
            made.wait()


def progress(what: str) -> None:
    print(f"[{time.monotonic() - BEGUN:4.0f} s] {what}", file=sys.stderr, flush=True)


def seconds(name: str, each: list[float]) -> dict[str, float]:
    if not each:
        return {}
    worst = sorted(each)[math.ceil(0.95 * len(each)) - 1]  # nearest rank: of 20, the 19th
    return {f"{name}_p50_s": round(statistics.median(each), 2), f"{name}_p95_s": round(worst, 2)}


if __name__ == "__main__":
    main()
