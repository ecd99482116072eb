# engines: none
"""Two replicas behind a gateway, and requests while a provider dies or is drained. For ``benchmarks/failover.py``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchlab import DOCKAGE, ROOT, Failed, LocalMarket, NodeProcess, free_port, run, wait_until

NAME, ZONE, RATE, PATIENCE = "public", "gw.example", 200, 90.0
COMPOSE = """
services:
  web:
    image: dockage/base:bookworm
    pull_policy: never
    command: ["sh", "-c", "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www"]
    init: true
    stop_grace_period: 1s
    labels: {dockage.public: "80", dockage.replicas: "2"}
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M}}}
"""


class Public:
    def __init__(self, world: LocalMarket, progress: Callable[[str], None]) -> None:
        self._world, self._progress, self._port = world, progress, free_port()

    def figures(self, requests: int) -> dict[str, Any]:
        self._progress("two replicas behind a gateway")
        here = f'http = "127.0.0.1:{self._port}"\nbind = "127.0.0.1"\n'
        section = f'zone = "{ZONE}"\npublic = ["203.0.113.7"]\nface = false\n{here}'
        self._world.add_gateway("gate", section, percent=1)
        with self._up():
            killed = self._while_asked(requests, self._kill)
            drained = self._while_asked(requests, self._drain)
        return {
            "failed_requests": killed["failed"],
            "drain_failed": drained["failed"],
            "requests": requests,
            "killed_load": killed,
            "drain_load": drained,
        }

    @contextmanager
    def _up(self) -> Iterator[None]:
        file = self._world.folder / "compose.yaml"
        file.write_text(COMPOSE)
        compose = ("compose", "-f", str(file), "-p", NAME)
        self._world.docker(*compose, "up", "-d")
        yield
        self._world.docker(*compose, "down", check=False)

    def _while_asked(
        self, requests: int, harm: Callable[[NodeProcess], Callable[[], None]]
    ) -> dict[str, Any]:
        """*harm* is done to the provider of the first replica half-way; what it returns mends it."""
        if not wait_until(lambda: self._seen_up() == self._serving() == 2, PATIENCE, 0.2):
            raise Failed(f"two replicas do not serve: {self._replicas()}, {self._public()}")
        script = ROOT / "benchmarks/failover_load.py"
        arguments = [str(self._port), self._host(), f"--requests={requests}", f"--rate={RATE}"]
        asking = subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(requests / RATE / 2)
            victim = self._victim()
            mend = harm(victim)
            out, _ = asking.communicate(timeout=requests / RATE + PATIENCE)
        finally:
            asking.kill()
            asking.wait()
        found: dict[str, Any] = json.loads(out)
        if victim.process is not None and not victim.process_ended():
            expect(lambda: victim.key not in self._providers(), "what was drained to be left")
        mend()
        self._progress(f"{harm.__name__.strip('_')}: {found}")
        return found

    def _kill(self, victim: NodeProcess) -> Callable[[], None]:
        victim.kill()
        return victim.start

    def _drain(self, victim: NodeProcess) -> Callable[[], None]:
        command = (*DOCKAGE, "--home", str(victim.home), "drain")
        run(*command)

        def cancel() -> None:
            run(*command, "--cancel")

        return cancel

    def _victim(self) -> NodeProcess:
        key = next(x["provider"] for x in self._replicas() if x["primary"])
        return next(node for node in self._world.providers.values() if node.key == key)

    def _replicas(self) -> list[dict[str, Any]]:
        found = self._world.tenant.ask("GET", "/v1/deployments")["deployments"]
        return next((x["replicas"] for x in found if x["deployment"] == NAME), [])

    def _serving(self) -> int:
        return sum((x["state"], x["health"]) == ("serving", "well") for x in self._replicas())

    def _providers(self) -> set[str]:
        """Whose replicas serve."""
        return {x["provider"] for x in self._replicas() if x["state"] == "serving"}

    def _public(self) -> dict[str, Any]:
        found = self._world.tenant.ask("GET", "/v1/public")["deployments"]
        return next((x for x in found if x["deployment"] == NAME), {"urls": [], "gateways": []})

    def _seen_up(self) -> int:
        return sum(not x["misses"] for way in self._public()["gateways"] for x in way["replicas"])

    def _host(self) -> str:
        [url] = self._public()["urls"]
        return str(url["url"].removeprefix("https://"))


def expect(true: Callable[[], bool], what: str) -> None:
    if not wait_until(true, PATIENCE, 0.2):
        raise Failed(f"waited {PATIENCE:g} s for {what}")
