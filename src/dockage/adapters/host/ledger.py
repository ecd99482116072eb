"""Which leases this provider has on the machine: one folder each, made before anything else of the lease and
removed after everything else. So whatever a crash leaves behind has an entry here.

Two providers on one machine have two homes, and never touch each other's leases.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

import msgspec

from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources

from . import names

LIMITS = "limits.json"


class Ledger:
    def __init__(self, home: Path) -> None:
        self._leases = home / "leases"

    def folder(self, lease: LeaseId) -> Path:
        return self._leases / names.checked(lease)

    def enter(self, lease: LeaseId, limits: Resources) -> None:
        """Raises UsageError("lease.collision") if another lease would get the same interface names."""
        names.checked(lease)
        for other in self.present():
            if other != lease and names.bridge_prefix(other) == names.bridge_prefix(lease):
                why = f"lease {other.hex()} begins with the same 8 digits; choose a new id"
                raise UsageError("lease.collision", why)
        folder = self.folder(lease)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(folder / LIMITS, msgspec.json.encode(limits))

    def limits(self, lease: LeaseId) -> Resources:
        """Raises UsageError("lease.unknown")."""
        try:
            return msgspec.json.decode((self.folder(lease) / LIMITS).read_bytes(), type=Resources)
        except FileNotFoundError:
            pass
        except msgspec.MsgspecError:
            return Resources()  # torn by a crash in the first prepare; the next one writes it again
        raise UsageError("lease.unknown", f"there is no lease {lease.hex()[:8]} on this machine")

    def present(self) -> frozenset[LeaseId]:
        with contextlib.suppress(FileNotFoundError):
            entries = os.listdir(self._leases)
            return frozenset(LeaseId(bytes.fromhex(e)) for e in entries if re.fullmatch("[0-9a-f]{32}", e))
        return frozenset()

    def leave(self, lease: LeaseId) -> None:
        shutil.rmtree(self.folder(lease), ignore_errors=True)
        if self.folder(lease).exists():
            why = f"{self.folder(lease)} cannot be removed: something is still mounted or used there"
            raise UsageError("lease.folder", why)


def replace_file(path: Path, content: bytes) -> None:
    """The old content or the new one, never half of it."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
