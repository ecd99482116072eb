"""Our user's own machines: who was linked with us (``linking.py``), kept over restarts.

A linked machine may rent here and pays nothing, and we ask it what it sells to us (``own.py``). The rule: nobody gets
in here but by a code that our user carried from one machine to the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec
import structlog

from dockage.domain.errors import UsageError
from dockage.domain.identity import NodeKey, short
from dockage.domain.units import Instant
from dockage.ports.machine import Journal, Row
from dockage.ports.peers import Address, PeerLink

from .ondisk import on_disk
from .rows import kept

log = structlog.get_logger("dockage.machines")

KIND = "own-machine"
MACHINES_MAX = 64


class Machine(msgspec.Struct, frozen=True, array_like=True):
    key: NodeKey
    name: str
    """As it called itself; for people only."""
    relay: str
    direct: tuple[str, ...]
    since: Instant

    @property
    def address(self) -> Address:
        return Address(self.relay, self.direct)


class Machines:
    def __init__(self, rows: Sequence[Row], journal: Journal, link: PeerLink) -> None:
        self._known = {machine.key: machine for machine in kept(rows, KIND, Machine)}
        self._journal, self._link = journal, link
        self.changed: Callable[[], Awaitable[None]] = _nothing
        """Called when somebody came or went."""
        for machine in self._known.values():
            link.learn(machine.key, machine.address)

    def __iter__(self) -> Iterator[Machine]:
        return iter(tuple(self._known.values()))

    def __contains__(self, key: object) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    @property
    def keys(self) -> frozenset[NodeKey]:
        return frozenset(self._known)

    async def add(self, machine: Machine) -> None:
        """Raises UsageError("link.full")."""
        if machine.key not in self._known and len(self._known) >= MACHINES_MAX:
            raise UsageError(
                "link.full", f"{MACHINES_MAX} machines are linked: `dockage link remove` one first"
            )
        await self._keep(machine)
        log.info("machine.linked", machine=short(machine.key), name=machine.name)
        await self.changed()

    async def moved(self, key: NodeKey, address: Address) -> None:
        """It says itself where it is now."""
        machine = self._known.get(key)
        if machine is None or machine.address == address or address == Address("", ()):
            return
        relay, direct = address
        await self._keep(Machine(key, machine.name, relay, direct, machine.since))

    async def remove(self, key: NodeKey) -> None:
        """Its leases here, and ours there, go on until they are ended."""
        if self._known.pop(key, None) is not None:
            await on_disk(self._journal.forget, [(KIND, key)])
            log.info("machine.unlinked", machine=short(key))
            await self.changed()

    def find(self, what: str) -> Machine:
        """By name or the beginning of its key. Raises UsageError("link.unknown")."""
        by_key = [x for x in self if len(what) >= 4 and x.key.hex().startswith(what.lower())]
        found = [x for x in self if x.name == what] or by_key
        if len(found) != 1:
            many = "more than one machine is" if found else "no machine is"
            raise UsageError("link.unknown", f"{many} called {what!r} here: see `dockage link list`")
        return found[0]

    async def _keep(self, machine: Machine) -> None:
        self._known[machine.key] = machine
        self._link.learn(machine.key, machine.address)
        await on_disk(self._journal.write, [Row(KIND, machine.key, msgspec.msgpack.encode(machine))])


async def _nothing() -> None:
    pass
