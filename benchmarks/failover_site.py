# engines: none
"""One replica with a standby behind a published port, and what becomes of it. For ``benchmarks/failover.py``."""

from __future__ import annotations

import http.client
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchlab import Failed, LocalMarket, free_port, run, wait_until

IMAGE = "dockage/base:bookworm"
SITE = "mkdir -p /www; echo hello > /www/index.html; httpd -f -p 80 -h /www & echo $! > /pid; wait; exit 1"
PATIENCE = 60.0
CALM = 11.0
"""Seconds that a container must run before its engine forgets that it crashed."""


class Site:
    def __init__(self, name: str, world: LocalMarket, engine: str, progress: Callable[[str], None]) -> None:
        self._name, self._world, self._engine, self._progress = name, world, engine, progress
        self._port, self._plain_port = free_port(), free_port()
        self._phases, self._old = list[dict[str, float]](), ""
        self._runs_since = 0.0
        """When the container that serves was last started, and the plain one, too."""

    @contextmanager
    def up(self, *, plain: bool = False) -> Iterator[None]:
        """*plain*: the same on an engine of this machine, too."""
        self._world.docker(
            *("run", "-d", "--name", self._name, "--restart=always", "--label=dockage.standby=1"),
            *("--cpus=0.5", "--memory=64m", "-p", f"{self._port}:80", IMAGE, "sh", "-c", SITE),
        )
        if plain:
            self._plain(
                *("run", "-d", "--name", self._name, "--restart=always", "--cpus=0.5", "--memory=64m"),
                *("-p", f"127.0.0.1:{self._plain_port}:80", IMAGE, "sh", "-c", SITE),
            )
        try:
            yield
        finally:
            if plain:
                self._plain("rm", "-f", self._name)
        self._world.docker("rm", "-f", self._name)

    def _plain(self, *arguments: str, check: bool = True) -> str:
        return run("docker", "--host", f"unix://{self._engine}", *arguments, check=check)

    def lost(self, silent: bool) -> float:
        """Seconds; its provider's daemon is killed, or stands still."""
        self._whole()
        self._old = next(x["lease"] for x in self._replicas() if x["primary"])
        key = next(x["provider"] for x in self._replicas() if x["primary"])
        victim = next(node for node in self._world.providers.values() if node.key == key)
        assert victim.process is not None
        victim.process.send_signal(signal.SIGSTOP if silent else signal.SIGKILL)
        try:
            took = self._until_it_answers(self._port, now(), watch=True)
            self._progress(f"{'silent' if silent else 'killed'}: {took:.2f} s {self._phases[-1]}")
            return took
        finally:
            if silent:
                victim.process.send_signal(signal.SIGCONT)
            else:
                victim.process.wait()
                victim.start()

    def crashed(self) -> tuple[float, float]:
        """Seconds, ours and those of a plain container on an engine of this machine. Each says itself when: between
        that and our hearing of it lies an engine's way."""
        self._whole()
        time.sleep(max(0.0, self._runs_since + CALM - now()))
        # The container may end before its exec does, which is no failure then.
        crash = ("exec", self._name, "sh", "-c", "cat /proc/uptime; kill -9 $(cat /pid)")
        said = self._world.docker(*crash, check=False).stdout
        took = self._until_it_answers(self._port, float(said.split()[0]))
        plain = self._until_it_answers(self._plain_port, float(self._plain(*crash, check=False).split()[0]))
        self._progress(f"crashed: {took:.2f} s, plain {plain:.2f} s")
        return took, plain

    def phases(self) -> dict[str, float]:
        """Medians, from the fault on."""
        names = dict.fromkeys(name for each in self._phases for name in each)
        return {
            name: round(statistics.median(x[name] for x in self._phases if name in x), 2) for name in names
        }

    def _until_it_answers(self, port: int, begun: float, *, watch: bool = False) -> float:
        """A request each 50 ms, whatever becomes of those before: none waits for one that hangs."""
        seen, answered = dict[str, float](), list[float]()
        while not answered:
            threading.Thread(target=ask, args=(port, answered), daemon=True).start()
            if watch:
                self._note(seen, begun)
            if now() - begun > PATIENCE:
                raise Failed(f"nothing answers after {PATIENCE:g} s: {self._replicas()}")
            time.sleep(0.05)
        took = answered[0] - begun
        self._runs_since = answered[0]
        if watch:
            self._phases.append({**seen, "answers": round(took, 2)})
        return took

    def _note(self, seen: dict[str, float], begun: float) -> None:
        """doubted: one sign is late; dead: lost by enough of them; starting: decided, the standby is told;
        started: its engine has done it."""
        replicas = self._replicas()
        old = [x for x in replicas if x["lease"] == self._old]
        new = {x["state"] for x in replicas if x["lease"] != self._old}
        states = {
            "doubted": any(x["health"] != "well" for x in old),
            "dead": any(x["health"] == "dead" for x in old),
            "starting": bool(new & {"starting", "serving"}),
            "started": "serving" in new,
        }
        for name, true in states.items():
            if true:
                seen.setdefault(name, round(now() - begun, 2))

    def _replicas(self) -> list[dict[str, Any]]:
        found = self._world.tenant.ask("GET", "/v1/deployments")["deployments"]
        kept = next((x for x in found if x["deployment"] == self._name), None)
        return kept["replicas"] if kept else []

    def _whole(self) -> None:
        def whole() -> bool:
            states = [(x["state"], x["health"]) for x in self._replicas()]
            return sorted(states) == [("serving", "well"), ("standby", "well")] and answers(self._port)

        if not wait_until(whole, PATIENCE, 0.2):
            raise Failed(f"it did not become whole again: {self._replicas()}")


def ask(port: int, answered: list[float]) -> None:
    if answers(port, 10):
        answered.append(now())


def now() -> float:
    """Seconds since the machine's start, as /proc/uptime shows them in every container, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def answers(port: int, seconds: float = 1.0) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
