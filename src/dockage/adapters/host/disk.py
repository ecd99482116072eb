"""What the containers' writable layers hold, by blocks: the one thing that has no counter and no quota.

A walk costs 2-4 us for each file, so it happens rarely, in a thread, at a random moment, and the longer the last
one took the rarer. Apparent sizes (``docker ps -s``) would bill a sparse file of 1 GB in full.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

from dockage.domain.identity import LeaseId
from dockage.wire.engine import BlockingEngine

from . import names

WALK_EVERY = 10.0
REST = 30.0
"""A walk of one second is followed by thirty of rest."""
WALK_MAX = 20.0
"""Seconds; a walk that is not done by then keeps the last known value."""


class WritableLayers:
    def __init__(
        self, socket: Path, now: Callable[[], float], random: Random, every: float = WALK_EVERY
    ) -> None:
        self._socket, self._now, self._random, self._every = socket, now, random, every
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dockage-disk")
        self._known: dict[LeaseId, int] = {}
        self._due: dict[LeaseId, float] = {}
        self._walks: dict[LeaseId, Future[None]] = {}
        self._walker: subprocess.Popen[str] | None = None
        self._closed = False

    def held(self, lease: LeaseId) -> int:
        """The last known bytes; begins a walk when one is due."""
        if self._now() >= self._due.setdefault(lease, 0.0) and lease not in self._walks:
            self._walks[lease] = self._pool.submit(self._walk, lease)
            self._walks[lease].add_done_callback(lambda _: self._walks.pop(lease, None))
        return self._known.get(lease, 0)

    def forget(self, lease: LeaseId) -> None:
        self._known.pop(lease, None)
        self._due.pop(lease, None)

    def close(self) -> None:
        self._closed = True
        if (walker := self._walker) is not None:
            walker.kill()
        self._pool.shutdown(cancel_futures=True)

    def _walk(self, lease: LeaseId) -> None:
        began = self._now()
        try:
            held = self._blocks(self._folders(lease))
            if lease in self._due:  # not torn down meanwhile
                self._known[lease] = held
        except (OSError, http.client.HTTPException, ValueError, subprocess.SubprocessError):
            pass  # the engine restarts, or the tree is too large: the last value stands
        rest = max(self._every, REST * (self._now() - began)) * self._random.uniform(0.5, 1.5)
        if lease in self._due:
            self._due[lease] = self._now() + rest

    def _folders(self, lease: LeaseId) -> list[str]:
        query = urlencode({"all": 1, "filters": json.dumps({"label": [names.label(lease)]})})
        found = self._get(f"/containers/json?{query}") or []
        layers = (self._get(f"/containers/{each['Id']}/json") for each in found)
        upper = ((each or {}).get("GraphDriver", {}).get("Data") or {} for each in layers)
        return [each["UpperDir"] for each in upper if "UpperDir" in each]

    def _get(self, path: str) -> Any:
        with contextlib.closing(BlockingEngine(self._socket)) as engine:
            engine.request("GET", path)
            response = engine.getresponse()
            return json.loads(response.read()) if response.status == 200 else None

    def _blocks(self, folders: list[str]) -> int:
        """GNU and busybox ``du`` alike: any depth, hard links once, no other file system. A file that vanishes
        meanwhile is a complaint, not a failure."""
        if not folders or self._closed:
            return 0
        command = ["du", "-sxk", "--", *folders]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as walker:
            self._walker = walker
            try:
                out, _ = walker.communicate(timeout=WALK_MAX)
            except subprocess.TimeoutExpired:
                walker.kill()
                raise
            finally:
                self._walker = None
        return sum(int(line.split("\t", 1)[0]) << 10 for line in out.splitlines())
