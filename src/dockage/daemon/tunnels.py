"""The tenant's own count of tunnel payload, lease by lease: what a provider's statement is compared with.

The counts survive a restart of the daemon: they are journalled with the rest, at most once a second, and a
little ahead of nothing: a count that was lost only makes the tenant's view smaller by one second's bytes,
which ``unseen.IN_FLIGHT`` allows for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from dockage.domain.identity import LeaseId
from dockage.ports.machine import Journal, Row

from .ondisk import on_disk

KIND = "tunnel-count"


class TunnelCounts:
    def __init__(self, rows: Iterable[Row], journal: Journal) -> None:
        self._counts: dict[LeaseId, list[int]] = {}
        self._dirty: set[LeaseId] = set()
        self._journal = journal
        for row in rows:
            if row.kind == KIND:
                self._counts[LeaseId(row.key)] = msgspec.msgpack.decode(row.value, type=list[int])

    def of(self, lease: LeaseId) -> tuple[int, int]:
        """(bytes sent to the container, bytes received from it)."""
        sent, received = self._counts.get(lease, (0, 0))
        return sent, received

    def counters(self, lease: LeaseId) -> tuple[Callable[[int], None], Callable[[int], None]]:
        """What ``splice`` calls with each piece: (sent, received)."""
        counts = self._counts.setdefault(lease, [0, 0])

        def sent(size: int) -> None:
            counts[0] += size
            self._dirty.add(lease)

        def received(size: int) -> None:
            counts[1] += size
            self._dirty.add(lease)

        return sent, received

    async def save(self) -> None:
        """What has changed is taken down here, in the loop that counts, and written in a thread."""
        rows = [
            Row(KIND, lease, msgspec.msgpack.encode(self._counts[lease])) for lease in sorted(self._dirty)
        ]
        self._dirty.clear()
        if rows:
            await on_disk(self._journal.write, rows)
