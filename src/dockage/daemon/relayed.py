"""Bytes that a gateway carries to a replica do not pass the tenant, so the tenant holds two strangers' bills against
each other: what the gateway states it relayed, and what the replica's provider states came through its tunnels.

Only what both say can be charged, and a little for what one has stated and the other not yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from dockage.domain.identity import LeaseId
from dockage.domain.statement import Statement
from dockage.domain.units import MIB
from dockage.domain.usage import Usage
from dockage.ports.machine import Journal, Row

from .ondisk import on_disk

KIND = "relayed"
SLACK = 256 * MIB
"""Bytes that one of the two has stated and the other has not yet: two seconds of a gigabit."""


class Relayed:
    def __init__(
        self, rows: Iterable[Row], journal: Journal, stated: Iterable[tuple[LeaseId, Usage]]
    ) -> None:
        """*stated*: what each lease's newest statement said before the restart."""
        self._partners: dict[LeaseId, set[LeaseId]] = {}
        self._stated: dict[LeaseId, tuple[int, int]] = {}
        self._journal = journal
        for row in rows:
            if row.kind == KIND:
                self._join(LeaseId(row.key), msgspec.msgpack.decode(row.value, type=list[LeaseId]))
        for lease, usage in stated:
            self._stated[lease] = (usage.net_in_bytes, usage.net_out_bytes)

    async def pair(self, ingress: LeaseId, replicas: Sequence[LeaseId]) -> None:
        """On disk when this returns. Once a pair, always a pair: the totals are of all time."""
        if not set(replicas) <= self._partners.get(ingress, set()):
            self._join(ingress, replicas)
            row = Row(KIND, ingress, msgspec.msgpack.encode(sorted(self._partners[ingress])))
            await on_disk(self._journal.write, [row])

    def _join(self, ingress: LeaseId, replicas: Sequence[LeaseId]) -> None:
        self._partners.setdefault(ingress, set()).update(replicas)
        for replica in replicas:
            self._partners.setdefault(replica, set()).add(ingress)

    def hear(self, statement: Statement) -> None:
        """Signed by the lease's provider; agreed to or not, it is that one's word."""
        if statement.lease in self._partners:
            usage = statement.usage
            into, out = self._stated.get(statement.lease, (0, 0))
            self._stated[statement.lease] = (max(into, usage.net_in_bytes), max(out, usage.net_out_bytes))

    def of(self, lease: LeaseId) -> tuple[int, int]:
        """The most (into, out) that *lease* can have carried for its partners; nothing if it has none."""
        partners = self._partners.get(lease)
        if not partners:
            return 0, 0
        said = [self._stated.get(partner, (0, 0)) for partner in partners]
        return sum(into for into, _ in said) + SLACK, sum(out for _, out in said) + SLACK
