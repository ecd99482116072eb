"""Packs folders into an image that ``docker load`` reads, with no engine at hand.

    make_image.py OUT.tar NAME:TAG CONFIG_JSON ROOT_FOLDER [ROOT_FOLDER...]

One layer a folder, lowest first. Entries are sorted and carry no time of their own, so the same files
always give the same image id: on both engines, and on the next machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
CREATED = "2026-01-01T00:00:00Z"  # a constant, as everything in an image


def main(out: Path, name: str, config: str, *folders: str) -> None:
    layers = [layer_of(Path(folder)) for folder in folders]
    document = image_config(json.loads(config), [digest(layer) for layer in layers])
    with tarfile.open(out, "w") as archive:
        for layer in layers:
            add(archive, f"{digest(layer)}/layer.tar", layer)
        add(archive, f"{digest(document)}.json", document)
        add(archive, "manifest.json", manifest(name, document, layers))


def layer_of(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as layer:
        for path in sorted(folder.rglob("*")):
            # Hard links would depend on the order of unpacking; plain copies do not.
            layer.inodes = {}  # type: ignore[attr-defined]
            entry = layer.gettarinfo(path, arcname=str(path.relative_to(folder)))
            entry.mtime, entry.uname, entry.gname = 0, "", ""
            if entry.isreg():
                with path.open("rb") as file:
                    layer.addfile(entry, file)
            else:
                layer.addfile(entry)
    return stream.getvalue()


def image_config(config: dict[str, object], diff_ids: list[str]) -> bytes:
    document = {
        "architecture": MACHINES[platform.machine()],
        "os": "linux",
        "created": CREATED,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for diff_id in diff_ids]},
        "history": [{"created": CREATED, "created_by": "dockage script/images"} for _ in diff_ids],
    }
    return json.dumps(document, sort_keys=True).encode()


def manifest(name: str, document: bytes, layers: list[bytes]) -> bytes:
    entry = {
        "Config": f"{digest(document)}.json",
        "RepoTags": [name],
        "Layers": [f"{digest(layer)}/layer.tar" for layer in layers],
    }
    return json.dumps([entry]).encode()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
