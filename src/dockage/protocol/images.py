"""How an image travels: by content, only the layers that the other side lacks. Counterpart: docs/spec/06-images.md.

One stream carries one image: ``Manifest`` ->, <- ``Wanted``, then chunks ->, and <- ``Loaded`` or ``Refused``; before
it wants anything a provider may say what it fetched elsewhere (``Fetched``), and it may want once more.
The rule that keeps it right: nothing is believed. The config must hash to the image id, the layers must be the
config's own diffIDs (OCI image-spec config.md §RootFS), every chunk and every whole layer must hash right.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from dockage.domain.deployment import GRANT_MAX
from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey

from .reading import decoded

CHUNK = 1 << 20
"""Raw bytes in a full chunk, and the most in any."""
CONFIG_MAX = 1 << 20
"""A config is about 5 kB; Docker's own limit for a manifest is 4 MiB."""
LAYERS_MAX = 256
"""The engine itself ends at 127."""
LAYER_MAX = 1 << 40
SOURCES_MAX = 8
MANIFEST_MAX = CONFIG_MAX + LAYERS_MAX * 64 + SOURCES_MAX * (GRANT_MAX + 64) + 4096
ROUNDS = 2
"""How often a provider may want layers: its engine may lack what it showed (an image removed meanwhile)."""
ANSWER_MAX = 16 << 10
CHUNK_FRAME_MAX = CHUNK + (CHUNK >> 7) + 512
"""A chunk that does not compress grows by 1/256 at most (ZSTD_COMPRESSBOUND), plus the head."""

_HEAD = struct.Struct(">HQI32s")
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")
TAR_BLOCK = 512


class Layer(msgspec.Struct, frozen=True, array_like=True):
    digest: bytes
    """sha256 of the uncompressed tar: the diffID without its prefix."""
    size: int


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Another provider that has the image."""

    provider: NodeKey
    lease: LeaseId
    """The tenant's own there."""
    grant: bytes
    """The tenant's word that it may hand the layers out (protocol/grants.py)."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sender's first frame."""

    config: bytes
    """The image's config JSON, byte for byte: its sha256 is the image id."""
    layers: tuple[Layer, ...]
    sources: tuple[Source, ...] = ()
    """Where else the layers may be had, best first; whatever they give is checked like ours."""

    @property
    def image(self) -> str:
        """``sha256:...`` as the engine prints it."""
        return "sha256:" + hashlib.sha256(self.config).hexdigest()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple("sha256:" + layer.digest.hex() for layer in self.layers)

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)


class Want(msgspec.Struct, frozen=True, array_like=True):
    index: int
    offset: int
    """How much of the layer is already there from an earlier, broken transfer."""


class Wanted(msgspec.Struct, frozen=True, tag="wanted"):
    layers: tuple[Want, ...]


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """Raw bytes that came from sources, of those that they were asked for."""

    done: int
    total: int


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    image: str
    """As the sender named it, whatever the engine calls it."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    code: str
    message: str


Reply = Wanted | Fetched | Loaded | Refused
_REPLY: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class Chunk(NamedTuple):
    layer: int
    offset: int
    size: int
    """Of the raw bytes."""
    digest: bytes
    """sha256 of the raw bytes."""
    packed: bytes
    """One zstd frame."""


class _RootFS(msgspec.Struct):
    diff_ids: list[str]
    type: str = "layers"


class _Config(msgspec.Struct):
    rootfs: _RootFS
    os: str = "linux"
    architecture: str = ""


_configs = msgspec.json.Decoder(_Config)
_manifests = msgspec.msgpack.Decoder(Manifest)


def lease_repository(lease: LeaseId) -> str:
    """What images of a lease are called in the provider's engine, so that two leases share one and neither can
    take it from the other. The tag is the image id's hex."""
    return f"dockage.lease/{lease.hex()}"


def lease_tag(lease: LeaseId, image: str) -> str:
    return f"{lease_repository(lease)}:{image.removeprefix('sha256:')}"


def of_lease_tag(lease: LeaseId, name: str) -> str:
    """The image id behind a ``lease_tag``; any other *name* as it is."""
    repository, colon, version = name.rpartition(":")
    return f"sha256:{version}" if colon and repository == lease_repository(lease) else name


def diff_ids_of(config: bytes) -> list[str]:
    """Raises PeerError("image.config")."""
    found = decoded("image.config", "not an image's config", _configs, config).rootfs.diff_ids
    if not all(_DIFF_ID.fullmatch(each) for each in found):
        raise PeerError("image.config", "the config names a layer that is no sha256 diffID")
    return found


def config_platform(config: bytes) -> tuple[str, str]:
    """(os, architecture) of a config that ``diff_ids_of`` could read."""
    found = _configs.decode(config)
    return found.os, found.architecture


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.msgpack.encode(manifest)


def decode_manifest(data: bytes) -> Manifest:
    """Raises PeerError("image.manifest" or "image.config")."""
    manifest = decoded("image.manifest", "not an image manifest", _manifests, data)
    if len(manifest.config) > CONFIG_MAX or not 0 < len(manifest.layers) <= LAYERS_MAX:
        raise PeerError(
            "image.manifest", f"a config has up to {CONFIG_MAX} bytes, an image 1 to {LAYERS_MAX} layers"
        )
    if not all(len(each.digest) == 32 and TAR_BLOCK <= each.size <= LAYER_MAX for each in manifest.layers):
        raise PeerError("image.manifest", "a layer has a 32-byte digest and at least one tar block")
    _check_sources(manifest.sources)
    if list(manifest.diff_ids) != diff_ids_of(manifest.config):
        raise PeerError("image.manifest", "the layers are not those that the config names")
    return manifest


def _check_sources(sources: Sequence[Source]) -> None:
    fitting = all(
        (len(each.provider), len(each.lease)) == (32, 16) and len(each.grant) <= GRANT_MAX for each in sources
    )
    if len(sources) > SOURCES_MAX or not fitting:
        raise PeerError("image.manifest", f"an image has up to {SOURCES_MAX} sources, each with its grant")


def encode_reply(reply: Reply) -> bytes:
    return msgspec.msgpack.encode(reply)


def decode_reply(data: bytes) -> Reply:
    """Raises PeerError("image.reply")."""
    return decoded("image.reply", "not an answer about an image", _REPLY, data)


def encode_chunk(chunk: Chunk) -> bytes:
    return _HEAD.pack(chunk.layer, chunk.offset, chunk.size, chunk.digest) + chunk.packed


def decode_chunk(data: bytes) -> Chunk:
    """Raises PeerError("image.chunk")."""
    if len(data) <= _HEAD.size:
        raise PeerError("image.chunk", "a chunk is longer than its head")
    layer, offset, size, digest = _HEAD.unpack_from(data)
    if not 0 < size <= CHUNK:
        raise PeerError("image.chunk", f"a chunk holds 1 to {CHUNK} bytes, not {size}")
    return Chunk(layer, offset, size, digest, data[_HEAD.size :])


def known_prefix(wanted: Sequence[str], chains: Iterable[Sequence[str]]) -> int:
    """How many leading layers of *wanted* some chain already has. The engine names a layer by all that lies
    under it (ChainID), so an equal layer at another height is not the same one."""
    best = 0
    for chain in chains:
        same = 0
        for ours, theirs in zip(wanted, chain, strict=False):
            if ours != theirs:
                break
            same += 1
        best = max(best, same)
    return best


def wanted_layers(manifest: Manifest, known: int, held: Mapping[bytes, int]) -> tuple[Want, ...]:
    """All above the known prefix, each digest once; *held* says how many bytes of a digest are here."""
    wants: dict[bytes, Want] = {}
    for index, layer in enumerate(manifest.layers[known:], start=known):
        here = held.get(layer.digest, 0)
        if here < layer.size and layer.digest not in wants:
            wants[layer.digest] = Want(index, here)
    return tuple(wants.values())


def check_wanted(manifest: Manifest, wanted: Wanted) -> int:
    """How many raw bytes the provider asks for. Raises PeerError("image.wanted") for what it cannot want."""
    seen: set[int] = set()
    for want in wanted.layers:
        if not 0 <= want.index < len(manifest.layers) or want.index in seen:
            raise PeerError(
                "image.wanted", f"the provider asks for layer {want.index}, which is not there (again)"
            )
        if not 0 <= want.offset < manifest.layers[want.index].size:
            raise PeerError("image.wanted", f"the provider asks for layer {want.index} from beyond its end")
        seen.add(want.index)
    return sum(manifest.layers[want.index].size - want.offset for want in wanted.layers)


class Expected(NamedTuple):
    layer: int
    offset: int
    size: int


def expected_chunks(manifest: Manifest, wanted: Sequence[Want]) -> Iterator[Expected]:
    """The one order in which chunks travel: both sides walk it, so anything else is a lie."""
    for want in wanted:
        offset, end = want.offset, manifest.layers[want.index].size
        while offset < end:
            size = min(CHUNK, end - offset)
            yield Expected(want.index, offset, size)
            offset += size


def check_chunk(chunk: Chunk, expected: Expected) -> None:
    if (chunk.layer, chunk.offset, chunk.size) != expected:
        why = f"chunk {chunk.layer}@{chunk.offset}+{chunk.size} came instead of {expected.layer}@{expected.offset}"
        raise PeerError("image.order", why)
