"""The front's records, in memory and in the journal: what the tenant made, and where it is.

The rule: a change is written before it is seen, and a look-up answers in the engine's own words.
"""

from __future__ import annotations

from collections.abc import Callable

from dockage.domain.identity import LeaseId
from dockage.ports.machine import Journal, Row
from dockage.protocol.docker import front_state as state
from dockage.protocol.docker.front_errors import no_container, no_network, no_volume
from dockage.protocol.docker.front_state import Container, Network, Record, Rented, Shelf, Volume


class Books:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.shelf = Shelf()

    def load(self) -> None:
        kinds = {kind: type_ for type_, kind in state.KINDS.items()}
        for row in self._journal.load(only=tuple(kinds)):
            if row.value != state.GONE:
                self.shelf.put(state.decode(kinds[row.kind], row.value))

    # -- changes -------------------------------------------------------------------------------------
    def keep(self, *records: Record) -> None:
        """Write and show them: all or none."""
        self._journal.write([_row(record, state.encode(record)) for record in records])
        for record in records:
            self.shelf.put(record)

    def forget(self, *records: Record) -> None:
        self._journal.write([_row(record, state.GONE) for record in records])
        for record in records:
            self.shelf.drop(record)

    def change(self, id_: str, edit: Callable[[Container], Container]) -> Container | None:
        """Edit the newest record of a container; None if it is gone meanwhile."""
        before = self.shelf.containers.get(id_)
        if before is None:
            return None
        after = edit(before)
        if after != before:
            self.keep(after)
        return after

    def show(self, container: Container) -> None:
        """In memory only: for what the engine can tell again after a restart."""
        self.shelf.put(container)

    # -- look-ups ------------------------------------------------------------------------------------
    def container(self, ref: str) -> Container:
        """By full id, name, or unique beginning of an id. Raises ApiError(404 or 400)."""
        if found := self.find_container(ref):
            return found
        raise no_container(ref)

    def find_container(self, ref: str) -> Container | None:
        return self.shelf.find_container(ref)

    def network(self, ref: str) -> Network:
        if found := self.find_network(ref):
            return found
        raise no_network(ref)

    def find_network(self, ref: str) -> Network | None:
        return self.shelf.find_network(ref)

    def volume(self, name: str) -> Volume:
        if found := self.shelf.volumes.get(name):
            return found
        raise no_volume(name)

    def by_remote(self, lease: LeaseId, remote: str) -> Container | None:
        """The container that the engine of *lease* calls *remote*."""
        return next(
            (one for one in self.shelf.containers.values() if one.remote == remote and one.lease == lease),
            None,
        )

    def at(self, lease: LeaseId) -> list[Container]:
        return [one for one in self.shelf.containers.values() if one.lease == lease]

    def rented(self, deployment: str) -> list[Rented]:
        return [one for one in self.shelf.rented.values() if one.deployment == deployment]

    def network_ids(self) -> dict[str, str]:
        return {one.name: one.id for one in self.shelf.networks.values()}


def _row(record: Record, value: bytes) -> Row:
    return Row(state.KINDS[type(record)], state.key(record), value)
