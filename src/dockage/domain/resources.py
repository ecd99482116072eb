"""What a container asks for, what a lease is limited to, what a provider has left: the same three numbers.

Of its limits a tenant may reserve less than all: the rest is used when it is there. What is *reserved* is kept free
for the lease and is what the tariff's reserved lines are about; without a word it is all of the limits.
"""

from __future__ import annotations

import msgspec

from .units import GIB, MIB

NAMES = ("cpu_milli", "memory_bytes", "disk_bytes")
"""What a machine has of; the other fields say how much of it need not be kept."""


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    cpu_milli: int = 0
    """Thousandths of a core."""
    memory_bytes: int = 0
    disk_bytes: int = 0
    cpu_soft_milli: int = 0
    """Of ``cpu_milli``, what others may be sold while it is not used."""
    memory_soft_bytes: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(*(getattr(self, f) + getattr(other, f) for f in self.__struct_fields__))

    def __sub__(self, other: Resources) -> Resources:
        return Resources(*(getattr(self, f) - getattr(other, f) for f in self.__struct_fields__))

    def __mul__(self, count: int) -> Resources:
        return Resources(*(getattr(self, f) * count for f in self.__struct_fields__))

    @property
    def hard(self) -> Resources:
        """The limits alone."""
        return Resources(self.cpu_milli, self.memory_bytes, self.disk_bytes)

    @property
    def reserved(self) -> Resources:
        """What is kept free for it, used or not."""
        return Resources(
            self.cpu_milli - self.cpu_soft_milli, self.memory_bytes - self.memory_soft_bytes, self.disk_bytes
        )

    def reserving(self, cpu_milli: int, memory_bytes: int) -> Resources:
        """The same limits with no more than this reserved of them."""
        return Resources(
            self.cpu_milli,
            self.memory_bytes,
            self.disk_bytes,
            max(0, self.cpu_milli - cpu_milli),
            max(0, self.memory_bytes - memory_bytes),
        )

    def covering(self, other: Resources) -> Resources:
        """The least that is as large as either, and has as much reserved."""
        cpu, memory, disk = (max(getattr(self, name), getattr(other, name)) for name in NAMES)
        kept, also = self.reserved, other.reserved
        return Resources(cpu, memory, disk).reserving(
            max(kept.cpu_milli, also.cpu_milli), max(kept.memory_bytes, also.memory_bytes)
        )

    def fits_in(self, room: Resources) -> bool:
        return (
            self.cpu_milli <= room.cpu_milli
            and self.memory_bytes <= room.memory_bytes
            and self.disk_bytes <= room.disk_bytes
        )

    def lacking(self, room: Resources) -> tuple[str, ...]:
        """The names of what *room* is too small for: the answer to ``dockage why``."""
        return tuple(name for name in NAMES if getattr(self, name) > getattr(room, name))

    def sold_permille(self, left: Resources) -> int:
        """How much of this capacity is sold when *left* is left, by its scarcest part; 0 to 1000."""
        shares: list[int] = [0]
        for name in NAMES:
            whole = int(getattr(self, name))
            if whole > 0:
                shares.append(1000 * (whole - int(getattr(left, name))) // whole)
        return min(1000, max(shares))

    @property
    def is_sane(self) -> bool:
        """False for a peer's nonsense: negative, or beyond any machine."""
        return (
            0 <= self.cpu_milli <= 1_000_000
            and 0 <= self.memory_bytes <= 1 << 50
            and 0 <= self.disk_bytes <= 1 << 60
            and 0 <= self.cpu_soft_milli <= self.cpu_milli
            and 0 <= self.memory_soft_bytes <= self.memory_bytes
        )


DEFAULT_CONTAINER = Resources(cpu_milli=1000, memory_bytes=512 * MIB, disk_bytes=1 * GIB)
"""What a container gets that states no limits."""
INGRESS = Resources(cpu_milli=10, memory_bytes=1 * MIB, disk_bytes=1 * MIB)
"""What a lease at a gateway keeps: a place among a thousand; its bill is the bytes."""
