"""``ports.Evidence`` as a folder: one JSON file for each contradiction, for our user to show to others."""

from __future__ import annotations

from pathlib import Path

FILES_MAX = 1_000
"""A provider that lies without end must not fill the disk; one proof is enough."""


class ProofFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, data: bytes) -> str:
        path = self._folder / name
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if not path.exists() and len(list(self._folder.iterdir())) < FILES_MAX:
            part = path.with_name(name + ".part")
            part.write_bytes(data)
            part.replace(path)
        return str(path)
