"""The probe that a tenant has run in its lease: its image, its command, what its output proves. Spec: 04c §The probe.

It finds nonces whose hash begins with zero bits. To find them takes a known number of hashes, to check them one
each: the size of the work need not be believed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import NamedTuple

from dockage.domain.errors import PeerError

from .images import Layer, Manifest

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
MILLISECONDS, BITS = 500, 12
"""Half a second, so that five periods of the kernel's bandwidth control are in it; a nonce for 4096 hashes."""
FOUND_MAX = 256
"""Nonces of one process."""
OUTPUT_MAX = 96 * 1024
CREATED = "2026-01-01T00:00:00Z"


class Image(NamedTuple):
    manifest: Manifest
    layer: bytes


class Told(NamedTuple):
    wall_ns: int
    """Of the process that took longest."""
    cpu_ns: int
    """Of all together."""
    touch_ns: int
    work: int
    """Hashes that were done for the nonces found, on average."""


def image(program: bytes, architecture: str) -> Image:
    """One file in one layer: the same program always makes the same image, so it travels once to each provider."""
    layer = _layer(program)
    digest = hashlib.sha256(layer).digest()
    config = {
        "architecture": MACHINES[architecture],
        "os": "linux",
        "created": CREATED,
        "config": {"Entrypoint": ["/probe"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hex()}"]},
        "history": [{"created": CREATED, "created_by": "dockage probe"}],
    }
    return Image(Manifest(json.dumps(config, sort_keys=True).encode(), (Layer(digest, len(layer)),)), layer)


def _layer(program: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo("probe")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return out.getvalue()


def command(seed: str, touch_bytes: int, processes: int) -> list[str]:
    return [seed, str(MILLISECONDS), str(BITS), str(touch_bytes), str(processes)]


def read(output: bytes, seed: str, processes: int) -> Told:
    """Raises PeerError("probe.output") for what does not prove the work that it says was done."""
    try:
        head, *lines = output[:OUTPUT_MAX].decode("ascii").splitlines()
        touch, told = int(head), [[int(word) for word in line.split()] for line in lines]
        walls, cpus = [each[0] for each in told], [each[1] for each in told]
    except (ValueError, IndexError):
        raise PeerError("probe.output", "the probe said something else than it can say") from None
    times = [touch + 1, *walls, *cpus]
    if len(told) != processes or min(times) <= 0 or max(times) >= 1 << 62:
        raise PeerError("probe.output", "the probe measured impossible times")
    for process, (_, _, *nonces) in enumerate(told):
        if len(nonces) > FOUND_MAX or sorted(set(nonces)) != nonces:
            raise PeerError("probe.output", "the probe's nonces are no list of different ones")
        if not all(_fits(seed, process, nonce) for nonce in nonces):
            raise PeerError("probe.output", "the probe's work was not done")
    return Told(max(walls), sum(cpus), touch, sum(len(each) - 2 for each in told) << BITS)


def _fits(seed: str, process: int, nonce: int) -> bool:
    if not 0 <= nonce < 1 << 64:
        return False
    found = hashlib.sha256(seed.encode() + bytes([process]) + nonce.to_bytes(8, "big")).digest()
    return int.from_bytes(found[:4], "big") >> (32 - BITS) == 0
