"""``ports.Evidence`` in memory: tests look at ``files``."""

from __future__ import annotations


class MemoryEvidence:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def keep(self, name: str, data: bytes) -> str:
        self.files.setdefault(name, data)
        return name
