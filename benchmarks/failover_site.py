# engines: none
"""One replica with a standby behind a published port, and what becomes of it. For ``benchmarks/failover.py``."""

from __future__ import annotations

import http.client
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "script"))

from devtools.localmarket import LocalMarket
from devtools.regtest import free_port
from devtools.shell import Failed, wait_until

NAME = "failover"
IMAGE = "dockage/base:bookworm"
SITE = "mkdir -p /www; echo hello > /www/index.html; httpd -f -p 80 -h /www & echo $! > /pid; wait; exit 1"
PATIENCE = 60.0
CALM = 11.0
"""Seconds that a container must run before its engine forgets that it crashed."""


class Site:
    def __init__(self, world: LocalMarket, progress: Callable[[str], None]) -> None:
        self._world, self._port, self._progress = world, free_port(), progress
        self._phases = list[dict[str, float]]()

    @contextmanager
    def up(self) -> Iterator[None]:
        self._world.docker(
            *("run", "-d", "--name", NAME, "--restart=always", "--label=dockage.standby=1"),
            *("--cpus=0.5", "--memory=64m", "-p", f"{self._port}:80", IMAGE, "sh", "-c", SITE),
        )
        yield
        self._world.docker("rm", "-f", NAME)

    def lost(self, silent: bool) -> float:
        """Seconds; its provider's daemon is killed, or stands still."""
        self._whole()
        key = next(x["provider"] for x in self._replicas() if x["primary"])
        victim = next(node for node in self._world.providers.values() if node.key == key)
        assert victim.process is not None
        victim.process.send_signal(signal.SIGSTOP if silent else signal.SIGKILL)
        try:
            took = self._until_it_answers(watch=True)
            self._progress(f"{'silent' if silent else 'killed'}: {took:.2f} s {self._phases[-1]}")
            return took
        finally:
            if silent:
                victim.process.send_signal(signal.SIGCONT)
            else:
                victim.process.wait()
                victim.start()

    def crashed(self) -> float:
        self._whole()
        time.sleep(CALM)
        self._world.docker("exec", NAME, "sh", "-c", "kill -9 $(cat /pid)")
        took = self._until_it_answers(watch=False)
        self._progress(f"crashed: {took:.2f} s")
        return took

    def phases(self) -> dict[str, float]:
        """Medians, from the fault on."""
        names = dict.fromkeys(name for each in self._phases for name in each)
        return {
            name: round(statistics.median(x[name] for x in self._phases if name in x), 2) for name in names
        }

    def _until_it_answers(self, watch: bool) -> float:
        begun, seen = time.monotonic(), dict[str, float]()
        while not answers(self._port):
            if watch:
                self._note(seen, begun)
            if time.monotonic() - begun > PATIENCE:
                raise Failed(f"nothing answers after {PATIENCE:g} s")
            time.sleep(0.02)
        took = time.monotonic() - begun
        if watch:
            self._phases.append({**seen, "answers": round(took, 2)})
        return took

    def _note(self, seen: dict[str, float], begun: float) -> None:
        """doubted: one sign is late; dead: lost by enough of them; starting: decided, and the standby is told;
        started: its engine has done it."""
        old, new = self._pair()
        now = round(time.monotonic() - begun, 2)
        states = {
            "doubted": old["health"] != "well",
            "dead": old["health"] == "dead",
            "starting": new["state"] == "starting",
            "started": new["state"] == "serving",
        }
        for name, true in states.items():
            if true:
                seen.setdefault(name, now)

    def _pair(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(what served, what is to)."""
        first, *others = sorted(self._replicas(), key=lambda x: int(x["epoch"]))
        return first, others[-1] if others else first

    def _replicas(self) -> list[dict[str, Any]]:
        found = self._world.tenant.ask("GET", "/v1/deployments")["deployments"]
        kept = next((x for x in found if x["deployment"] == NAME), None)
        return kept["replicas"] if kept else []

    def _whole(self) -> None:
        def whole() -> bool:
            states = [(x["state"], x["health"]) for x in self._replicas()]
            return sorted(states) == [("serving", "well"), ("standby", "well")] and answers(self._port)

        if not wait_until(whole, PATIENCE, 0.2):
            raise Failed(f"it did not become whole again: {self._replicas()}")


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
