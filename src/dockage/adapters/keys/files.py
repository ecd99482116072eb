"""A node's identity in a file that only its owner can read: 32 bytes of seed, in hex. Nothing else hands it out."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from dockage.domain.errors import UsageError
from dockage.wire.keys import SeedKeys


class FileKeys(SeedKeys):
    """Reads the seed at *path*, or makes one there (mode 0600, its folder 0700). Raises UsageError("keys.*") if
    the file is damaged or open to others: a new key would be a new node, so that is never done silently."""

    def __init__(self, path: Path) -> None:
        super().__init__(_read(path) if path.exists() else _create(path))


def _read(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise UsageError("keys.exposed", f"{path} can be read by others; run: chmod 600 {path}")
    try:
        seed = bytes.fromhex(path.read_text("ascii"))
    except (ValueError, OSError) as error:
        raise UsageError(
            "keys.damaged", f"{path} is not a dockage key file; restore it from a backup"
        ) from error
    if len(seed) != 32:
        raise UsageError("keys.damaged", f"{path} is not a dockage key file; restore it from a backup")
    return seed


def _create(path: Path) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    seed = secrets.token_bytes(32)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(seed.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    _publish(part, path)
    return seed


def _publish(part: Path, path: Path) -> None:
    """Link rather than rename: of two daemons that start together, the second fails instead of replacing."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise UsageError("keys.busy", f"another process just made {path}; start again") from None
    finally:
        part.unlink()
