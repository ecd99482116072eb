"""Which epoch of each lease still counts: below it a tenant's grants are void, also after a restart."""

from __future__ import annotations

from collections.abc import Iterable

from dockage.domain.identity import LeaseId
from dockage.ports.machine import Journal, Row

from .ondisk import on_disk

KIND = "fence"


class Fences:
    def __init__(self, rows: Iterable[Row], journal: Journal) -> None:
        self._epochs = {LeaseId(r.key): int.from_bytes(r.value, "big") for r in rows if r.kind == KIND}
        self._journal = journal

    def of(self, lease: LeaseId) -> int:
        return self._epochs.get(lease, 0)

    async def lift(self, lease: LeaseId, epoch: int) -> int:
        """The epoch that counts now: it never falls. On disk when this returns."""
        if epoch > self.of(lease):
            self._epochs[lease] = epoch  # at once: what is refused too early does no harm
            row = Row(KIND, lease, epoch.to_bytes(8, "big"))
            await on_disk(self._journal.write, [row])
        return self.of(lease)
