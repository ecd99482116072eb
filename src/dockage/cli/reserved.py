"""compose's ``reservations.cpus``, which compose keeps to itself, handed on as the label that says the same.

By one more compose file behind the user's own, so that compose goes on merging and nothing else changes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dockage.protocol.docker.front_create import RESERVED_CPUS

from .compose import Files

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""In the order in which compose takes them."""


@contextmanager
def labelled(files: Files, labels: Mapping[str, str]) -> Iterator[Files]:
    """*files* with *labels* (service to cores); the added file is there while the block lasts."""
    if not labels:
        yield files
        return
    services = {name: {"labels": {RESERVED_CPUS: cores}} for name, cores in labels.items()}
    with tempfile.TemporaryDirectory(prefix="dockage-") as folder:
        added = Path(folder) / "reserved.json"
        added.write_text(json.dumps({"services": services}))
        given = [] if "-f" in files.words else [word for path in found() for word in ("-f", path)]
        yield Files((*files.words, *given, "-f", str(added)))


def found() -> list[str]:
    """What compose takes when it is told none: ``COMPOSE_FILE``, or the nearest folder's file with its override."""
    if named := os.environ.get("COMPOSE_FILE"):
        return named.split(os.environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if mine := [folder / name for name in NAMES if (folder / name).exists()]:
            more = (folder / f"{Path(name).stem}.override{Path(name).suffix}" for name in NAMES)
            return [str(mine[0]), *[str(path) for path in more if path.exists()][:1]]
    return []
