"""A tenant's machine without any Docker engine: the front over a store of images of our own."""

from __future__ import annotations

import platform
from pathlib import Path

from dockage.adapters.front.front import DockerFront
from dockage.adapters.images import ImageSender, OwnImages, Pulling
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.adapters.system.clock import SystemClock
from dockage.domain.identity import LeaseId
from dockage.ports.renting import Progress
from dockage.testing.leases import FakeLeases
from dockage.wire.blobs import LIMIT


class Bare:
    def __init__(self, folder: Path, leases: FakeLeases) -> None:
        self.folder, self.leases, self.limit = folder, leases, LIMIT
        self.journal = SqliteJournal(folder / "bare.db")
        self.told: list[tuple[str, str]] = []

    def front(self) -> DockerFront:
        store = OwnImages(self.folder / "own", SystemClock(), self.limit)
        sender = ImageSender(store)

        async def send_image(reference: str, lease: LeaseId, progress: Progress) -> str:
            return await sender.send(
                lambda: self.leases.layers(lease),
                reference,
                lambda done, total: progress(f"{done} of {total}"),
            )

        socket = self.folder / "bare.sock"
        return DockerFront(
            socket,
            self.leases,
            None,
            send_image,
            self.journal,
            store=store,
            puller=Pulling(store, self.folder / "pulled", platform.machine(), [self.folder / "certs.d"]),
            tell=lambda deployment, line: self.told.append((deployment, line)),
            clock=SystemClock(),
            linger_sec=0.1,
        )
