"""What each container uses, as the Docker socket of this home tells it: the part of ``top`` below a lease.

Asked in the background, all at once: a provider that is slow holds up nobody but itself.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

from .client import Json, UnixConnection

EVERY_SEC = 2.0
"""Each answer costs the provider a millisecond, and the way to it several."""
ASK_SEC = 4.0
AT_ONCE = 8
CONTAINERS_MAX = 64
ANSWER_MAX = 4 << 20


class Use(NamedTuple):
    """One running container at one moment."""

    id: str
    lease: str
    name: str
    state: str
    at_ms: int
    cpu_ns: int
    memory: int
    memory_limit: int
    received: int
    sent: int


class Containers:
    """Newest figures in ``seen``; starts nothing before ``start``."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self.seen: tuple[Use, ...] = ()
        self._over = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while not self._over.is_set():
                self.seen = self.look(pool)
                self._over.wait(EVERY_SEC)

    def look(self, pool: ThreadPoolExecutor) -> tuple[Use, ...]:
        """Nothing while the socket does not answer: leases are shown all the same."""
        try:
            listed = ask(self._socket, "/containers/json")
        except (OSError, ValueError, http.client.HTTPException):
            return ()
        running = [one for one in listed if one.get("State") in ("running", "paused")][:CONTAINERS_MAX]
        return tuple(use for use in pool.map(self._use, running) if use is not None)

    def _use(self, listed: Json) -> Use | None:
        try:
            stats = ask(self._socket, f"/containers/{listed['Id']}/stats?stream=0&one-shot=1")
            return use(listed, stats)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException):
            return None  # it ended meanwhile, or its provider does not answer


def ask(socket: str, path: str, timeout: float = ASK_SEC) -> Any:
    """Raises OSError, ValueError or HTTPException."""
    connection = UnixConnection(socket, timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        data = answer.read(ANSWER_MAX)
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"status {answer.status}")
    return json.loads(data)


def use(listed: Json, stats: Json) -> Use:
    """From an item of ``/containers/json`` and an answer of ``/stats`` (Engine API 1.41)."""
    memory = stats.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    cache = detail.get("inactive_file", detail.get("total_inactive_file", 0))  # cgroup v2, v1
    networks: Sequence[Json] = list((stats.get("networks") or {}).values())
    return Use(
        id=str(listed["Id"]),
        lease=str((listed.get("Labels") or {}).get("dockage.lease", "")),
        name=str((listed.get("Names") or ["/?"])[0]).removeprefix("/"),
        state=str(listed.get("State", "")),
        at_ms=_at_ms(str(stats["read"])),
        cpu_ns=int(stats["cpu_stats"]["cpu_usage"]["total_usage"]),
        memory=max(0, int(memory.get("usage", 0)) - int(cache)),
        memory_limit=int(memory.get("limit", 0)),
        received=sum(int(one.get("rx_bytes", 0)) for one in networks),
        sent=sum(int(one.get("tx_bytes", 0)) for one in networks),
    )


def _at_ms(read: str) -> int:
    """The engine writes nanoseconds, of which ``fromisoformat`` takes six digits."""
    whole, _, fraction = read.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}+00:00").timestamp() * 1000)
