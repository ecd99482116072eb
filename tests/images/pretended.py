"""A registry on loopback that does what a test says, and otherwise what all of them do."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import random
import ssl
from collections.abc import Callable
from typing import Any

import zstandard
from aiohttp import web

from dockage.protocol import registry

SCHEMA2 = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = registry.INDEXES[0]
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
RAW = "application/vnd.oci.image.layer.v1.tar"
NOISE = random.Random(1).randbytes(1 << 20)
"""Does not pack, so that it takes several reads."""
PACKED = gzip.compress(NOISE, 1)
Reply = web.StreamResponse
Trick = Callable[[web.Request], "web.StreamResponse | None"]


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def described(content: bytes, kind: str = "", **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": sha(content), "size": len(content), **more}


class Pretended:
    """A registry on loopback with one image, ``tests/app:1``, of three layers, each packed in another way."""

    def __init__(self) -> None:
        self.raw = [NOISE, b"two" * 400, b"three" * 400]
        self.packed = [PACKED, zstandard.compress(self.raw[1]), self.raw[2]]
        config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [sha(x) for x in self.raw]}}
        self.config = json.dumps(config).encode()
        self.layers = [
            described(packed, kind) for packed, kind in zip(self.packed, (GZIP, ZSTD, RAW), strict=True)
        ]
        self.blobs = {sha(blob): blob for blob in (*self.packed, self.config)}
        self.manifests: dict[str, bytes] = {}
        self.tag("1", self.manifest())
        self.asked: list[web.Request] = []
        self.trick: Trick = lambda request: None
        """Answers instead, if it wants."""
        self.silent = False

    def manifest(self, **changed: Any) -> bytes:
        found = {
            "schemaVersion": 2,
            "mediaType": SCHEMA2,
            "config": described(self.config),
            "layers": self.layers,
        }
        return json.dumps(found | changed).encode()

    def tag(self, version: str, manifest: bytes) -> None:
        self.manifests[version] = self.manifests[sha(manifest)] = manifest

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.serve)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.port = int(self.runner.addresses[0][1])
        self.host = f"127.0.0.1:{self.port}"
        self.name = f"{self.host}/tests/app:1"

    async def serve(self, request: web.Request) -> Reply:
        self.asked.append(request)
        if self.silent:
            await asyncio.sleep(60)
        if (found := self.trick(request)) is not None:
            return found
        if request.path == "/v2/":
            return web.json_response({})
        what, _, name = request.path.removeprefix("/v2/tests/app/").partition("/")
        body = {"manifests": self.manifests, "blobs": self.blobs}.get(what, {}).get(name)
        if body is None:
            fault = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return web.json_response(fault, status=404)
        if begin := request.headers.get("range"):
            at = int(begin.removeprefix("bytes=").rstrip("-"))
            headers = {"content-range": f"bytes {at}-{len(body) - 1}/{len(body)}"}
            return web.Response(body=body[at:], status=206, headers=headers)
        return web.Response(body=body)

    def paths(self, part: str) -> list[str]:
        return [request.path for request in self.asked if part in request.path]
