"""The engine's end of an arriving image: which layers it shows, and how it is made to take the rest.

Three ways, tried in this order: an archive without the layers that it has (20.10 to 28.5, both image stores); if it
turns out not to have them, one with all of them, for which the caller fetches the others; if it takes no archive at
all, a pull from a registry on the loopback.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId
from dockage.protocol.image_archive import Named, oci_manifest, sha256
from dockage.protocol.images import Manifest, lease_repository, lease_tag
from dockage.wire.archive import Find, archive
from dockage.wire.engine import Answer, EngineClient

from .registry import registry

LOAD_MAX = 1800.0
"""Seconds; the engine unpacks about 100 MB/s from a slow disk."""
FAILED = (b'"error"', b"Error unpacking")
"""What an answer of status 200 says when it failed; the second is the containerd store's."""


class EngineImages:
    def __init__(self, client: EngineClient, share: bool) -> None:
        """*share*: whether another lease's layers count as known. A tenant who knows a diffID then learns that
        somebody runs it here."""
        self._client, self._share = client, share
        self._chains: dict[str, tuple[str, ...]] = {}

    async def known_chains(self, lease: LeaseId) -> list[tuple[str, ...]]:
        """The layers of every image here, bottom first."""
        only = {"filters": json.dumps({"reference": [lease_repository(lease)]})}
        params = {"all": "1"} if self._share else only
        found = await self._client.must("GET", "/images/json", params=params)
        fresh: dict[str, tuple[str, ...]] = {}
        for each in found or []:
            fresh[each["Id"]] = self._chains.get(each["Id"]) or await self._chain(each["Id"])
        if self._share:
            self._chains = fresh  # an image's layers never change, so only new ones are asked for
        return list(fresh.values())

    async def _chain(self, image: str) -> tuple[str, ...]:
        answer = await self._client.call("GET", f"/images/{image}/json")
        return tuple((answer.json().get("RootFS") or {}).get("Layers") or ()) if answer.ok else ()

    async def take(self, lease: LeaseId, manifest: Manifest, find: Find) -> None:
        """The image under the lease's tag; *find* knows at least the layers that the engine does not show. Raises
        Unavailable("image.load") when it lacks more than that, or takes none."""
        tag = lease_tag(lease, manifest.image)
        complete = all(find(layer) for layer in manifest.layers)
        why = await self._load(tag, manifest, find)
        if why and complete:
            why = await self._pull(tag, manifest, find)
        if why:
            self._chains.clear()  # most likely a layer was removed after we had looked
            raise Unavailable(
                "image.load", f"the provider's engine did not take the image ({why}); send it again"
            )

    async def _load(self, tag: str, manifest: Manifest, find: Find) -> str:
        """An empty string, or why not."""
        content = archive([Named(manifest, (tag,))], find)
        answer = await self._client.upload("/images/load?quiet=1", content, LOAD_MAX)
        return _failure(answer) or await self._check(tag, manifest)

    async def _pull(self, tag: str, manifest: Manifest, find: Find) -> str:
        repository, _, version = tag.rpartition(":")
        async with registry(manifest, find) as reference:
            name, _, label = reference.rpartition(":")
            params = {"fromImage": name, "tag": label}
            answer = await self._client.call("POST", "/images/create", params=params, timeout=LOAD_MAX)
            if why := _failure(answer):
                return why
            params = {"repo": repository, "tag": version}
            tagged = await self._client.call("POST", f"/images/{reference}/tag", params=params)
            await self._client.call("DELETE", f"/images/{reference}")
        return await self._check(tag, manifest) if tagged.ok else tagged.message

    async def _check(self, tag: str, manifest: Manifest) -> str:
        """Whether the tag is this very image: its config, or, in the containerd store, its manifest."""
        answer = await self._client.call("GET", f"/images/{tag}/json")
        names = (manifest.image, sha256(oci_manifest(manifest)))
        if answer.ok and (answer.json()["Id"] in names or _layers(answer) == manifest.diff_ids):
            return ""
        await self._client.call("DELETE", f"/images/{tag}")
        return "it made another image of it" if answer.ok else answer.message


def _layers(answer: Answer) -> Sequence[str]:
    return tuple((answer.json().get("RootFS") or {}).get("Layers") or ())


def _failure(answer: Answer) -> str:
    if answer.ok and not any(words in answer.body for words in FAILED):
        return ""
    return _error(answer.body) or f"status {answer.status}"


def _error(body: bytes) -> str:
    for line in reversed(body.splitlines()):
        try:
            said: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and (
            words := said.get("error") or said.get("message") or said.get("stream")
        ):
            return str(words).strip()[:300]
    return body[:300].decode(errors="replace")
