"""What a container asks for, what a lease is limited to, what a provider has left: the same three numbers."""

from __future__ import annotations

import msgspec

from .units import GIB, MIB


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cpu_milli: int = 0
    """Thousandths of a core."""
    memory_bytes: int = 0
    disk_bytes: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.cpu_milli + other.cpu_milli,
            self.memory_bytes + other.memory_bytes,
            self.disk_bytes + other.disk_bytes,
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            self.cpu_milli - other.cpu_milli,
            self.memory_bytes - other.memory_bytes,
            self.disk_bytes - other.disk_bytes,
        )

    def fits_in(self, room: Resources) -> bool:
        return (
            self.cpu_milli <= room.cpu_milli
            and self.memory_bytes <= room.memory_bytes
            and self.disk_bytes <= room.disk_bytes
        )

    def lacking(self, room: Resources) -> tuple[str, ...]:
        """The names of what *room* is too small for: the answer to ``dockage why``."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name) > getattr(room, name))

    def sold_permille(self, left: Resources) -> int:
        """How much of this capacity is sold when *left* is left, by its scarcest part; 0 to 1000."""
        shares: list[int] = [0]
        for name in self.__struct_fields__:
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
        )


DEFAULT_CONTAINER = Resources(cpu_milli=1000, memory_bytes=512 * MIB, disk_bytes=1 * GIB)
"""What a container gets that states no limits."""
INGRESS = Resources(cpu_milli=10, memory_bytes=1 * MIB, disk_bytes=1 * MIB)
"""What a lease at a gateway keeps: a place among a thousand; its bill is the bytes."""
