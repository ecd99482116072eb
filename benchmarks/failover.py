"""How long until a published port answers again, from one replica with a standby.

    script/bench failover [--json FILE] [--runs N]

killed_p50_s, killed_p95_s      the provider's daemon is killed (SIGKILL)
failover_p50_s, failover_p95_s  it falls silent: stopped (SIGSTOP), which from outside is a line that was cut
crash_p50_s, crash_p95_s        only the container's process dies; its engine starts it again (--restart=always)
missing                         what the issue asks for and is not measured here yet

Each time counts from the fault until a request that began after it is answered.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "script"))

from devtools.localmarket import LocalMarket, NodeProcess  # noqa: E402
from devtools.regtest import free_port  # noqa: E402
from devtools.shell import Failed, wait_until  # noqa: E402

NAME = "failover"
IMAGE = "dockage/base:bookworm"
SITE = "mkdir -p /www; echo hello > /www/index.html; httpd -f -p 80 -h /www & echo $! > /pid; wait; exit 1"
PATIENCE = 60.0
CALM = 11.0
"""Seconds that a container must run before its engine forgets that it crashed."""
MISSING = "swarm_p50_s failed_requests drain_failed gateway_rps bare_rps"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--engines", nargs=2, metavar=("TENANT", "PROVIDER"), required=True, help="sockets")
    options = parser.parse_args()
    figures = measure(*options.engines, options.runs)
    figures["missing"] = MISSING
    figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    for name, value in figures.items():
        print(f"{name:<16} {value}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure(tenant_engine: str, provider_engine: str, runs: int) -> dict[str, Any]:
    world = LocalMarket(tenant_engine, provider_engine, {"ada": 1, "bob": 1, "cal": 1}, channel_sat=500_000)
    try:
        world.start()
        world.fund_tenant(5_000_000)
        world.mine_every(1.0)
        world.wait_for_offers(3)
        return Site(world).figures(runs)
    finally:
        world.close()


class Site:
    def __init__(self, world: LocalMarket) -> None:
        self._world, self._port = world, free_port()

    def figures(self, runs: int) -> dict[str, Any]:
        self._world.docker(
            *("run", "-d", "--name", NAME, "--restart=always", "--label=dockage.standby=1"),
            *("--cpus=0.5", "--memory=64m", "-p", f"{self._port}:80", IMAGE, "sh", "-c", SITE),
        )
        return {
            **spread("killed", [self._lost(lambda n: n.kill(), NodeProcess.start) for _ in range(runs)]),
            **spread("failover", [self._lost(silence, wake) for _ in range(runs)]),
            **spread("crash", [self._crashed() for _ in range(runs)]),
        }

    def _lost(self, harm: Callable[[NodeProcess], None], mend: Callable[[NodeProcess], None]) -> float:
        self._whole()
        key = next(x["provider"] for x in self._replicas() if x["primary"])
        victim = next(node for node in self._world.providers.values() if node.key == key)
        harm(victim)
        try:
            return self._until_it_answers()
        finally:
            mend(victim)

    def _crashed(self) -> float:
        self._whole()
        time.sleep(CALM)
        self._world.docker("exec", NAME, "sh", "-c", "kill -9 $(cat /pid)")
        return self._until_it_answers()

    def _until_it_answers(self) -> float:
        begun = time.monotonic()
        while not answers(self._port):
            if time.monotonic() - begun > PATIENCE:
                raise Failed(f"nothing answers after {PATIENCE:g} s")
            time.sleep(0.02)
        return time.monotonic() - begun

    def _replicas(self) -> list[dict[str, Any]]:
        found = self._world.tenant.ask("GET", "/v1/deployments")["deployments"]
        return found[0]["replicas"] if found else []

    def _whole(self) -> None:
        def whole() -> bool:
            states = [(x["state"], x["health"]) for x in self._replicas()]
            return sorted(states) == [("serving", "well"), ("standby", "well")] and answers(self._port)

        if not wait_until(whole, PATIENCE, 0.2):
            raise Failed(f"it did not become whole again: {self._replicas()}")


def silence(node: NodeProcess) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)


def wake(node: NodeProcess) -> None:
    assert node.process is not None
    node.process.send_signal(signal.SIGCONT)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def spread(name: str, seconds: list[float]) -> dict[str, float]:
    worst = sorted(seconds)[min(len(seconds) - 1, int(0.95 * len(seconds)))]
    return {f"{name}_p50_s": round(statistics.median(seconds), 2), f"{name}_p95_s": round(worst, 2)}


if __name__ == "__main__":
    main()
