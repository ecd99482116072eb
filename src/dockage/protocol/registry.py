"""What a registry of images is asked and says (OCI distribution-spec v1.1, image-spec v1.1, Docker's schema 2).

Counterpart: ``adapters/images/registry.py``. The rule that keeps it right: a hash decides wherever there is one; what a
registry merely says (which manifest a tag means, where a token is had) is bounded and typed here.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

import msgspec

from dockage.domain.errors import PeerError, UsageError

from .image_names import familiar
from .images import LAYERS_MAX
from .reading import decoded

MANIFEST_MAX = 4 << 20
"""What registries take at most (distribution-spec v1.1, "Pushing Manifests")."""
ENTRIES_MAX = 256
"""Platforms of an index."""
HUB = "docker.io"
"""What a name without a host means: Docker's own rule (distribution reference, normalize.go)."""
HUB_HOST = f"registry-1.{HUB}"
"""Where that one answers."""
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.v1\.tar(\+gzip|\+zstd)?|docker\.image\.rootfs\.diff\.tar(\.gzip|\.zstd)?)"
)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What Linux calls a machine, and what images do; elsewhere both are the same."""
_VARIANTS = {("arm64", "v8"): "", ("amd64", "v1"): ""}
"""What every machine of the kind has, and so is mostly left out."""


# -- names -------------------------------------------------------------------------------------------
class Reference(NamedTuple):
    name: str
    """The repository as users call it: ``app``, ``host.example:5000/team/app``."""
    version: str
    """A tag, or ``sha256:...``."""

    @property
    def host(self) -> str:
        return HUB_HOST if self._domain == HUB else self._domain

    @property
    def repository(self) -> str:
        """The registry's own name of it."""
        if self._domain == HUB:
            return self.name if "/" in self.name else f"library/{self.name}"
        return self.name.partition("/")[2]

    @property
    def is_digest(self) -> bool:
        return self.version.startswith("sha256:")

    @property
    def _domain(self) -> str:
        first, slash, _ = self.name.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else HUB

    def __str__(self) -> str:
        return f"{self.name}{'@' if self.is_digest else ':'}{self.version}"


def reference(text: str) -> Reference:
    """Of ``app``, ``app:1``, ``host/app@sha256:...`` (a tag beside a digest says nothing, as in Docker). Raises
    UsageError("image.name")."""
    plain, at, digest = text.partition("@")
    name, _, tag = familiar(plain).rpartition(":")
    if at and not DIGEST.fullmatch(digest):
        raise UsageError("image.name", f"invalid reference format: {text[:100]!r}")
    return Reference(name, digest if at else tag)


class Platform(NamedTuple):
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


def platform(text: str) -> Platform:
    """Of ``linux/arm64/v8``. Raises UsageError("image.platform")."""
    parts = text.lower().split("/")
    if not 2 <= len(parts) <= 3 or not all(re.fullmatch(r"[a-z0-9_.-]{1,32}", part) for part in parts):
        raise UsageError(
            "image.platform", f"not a platform: {text[:100]!r}; write os/architecture, as linux/amd64"
        )
    return _plain(*parts)


def _plain(os: str, architecture: str, variant: str = "") -> Platform:
    return Platform(os, architecture, _VARIANTS.get((architecture, variant), variant))


# -- manifests ---------------------------------------------------------------------------------------
class _Platform(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class Blob(msgspec.Struct, frozen=True, rename="camel"):
    """A descriptor: what it must hash to, and its bytes as they travel."""

    digest: str
    size: int
    media_type: str = ""
    platform: _Platform | None = None

    @property
    def short(self) -> str:
        """As docker shows a layer."""
        return self.digest[7:19]


class _Document(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    config: Blob | None = None
    layers: list[Blob] = []
    manifests: list[Blob] = []


_documents = msgspec.json.Decoder(_Document)


class ImageManifest(NamedTuple):
    config: Blob
    layers: tuple[Blob, ...]


def parse_manifest(data: bytes) -> ImageManifest | tuple[Blob, ...]:
    """An image, or an index of images for several platforms. Raises PeerError("registry.manifest")."""
    found = decoded("registry.manifest", "the registry sent no manifest", _documents, data)
    if found.schema_version != 2:
        raise _bad(f"its manifest has schema {found.schema_version}; only schema 2 names what can be checked")
    blobs = [*([found.config] if found.config else []), *found.layers, *found.manifests]
    if not all(DIGEST.fullmatch(blob.digest) and 0 < blob.size < 1 << 40 for blob in blobs):
        raise _bad("its manifest names something without a sha256 digest and a size")
    if found.config is None:
        if not 0 < len(found.manifests) <= ENTRIES_MAX:
            raise _bad(f"its index has {len(found.manifests)} images; 1 to {ENTRIES_MAX} may be")
        return tuple(found.manifests)
    if not 0 < len(found.layers) <= LAYERS_MAX:
        raise _bad(f"its image has {len(found.layers)} layers; 1 to {LAYERS_MAX} may be")
    if strange := [layer.media_type for layer in found.layers if not _LAYER.fullmatch(layer.media_type)]:
        raise _bad(f"this is no image for containers: a layer is {strange[0][:100]!r}")
    return ImageManifest(found.config, tuple(found.layers))


def for_platform(index: tuple[Blob, ...], wanted: Platform) -> Blob:
    """The image for *wanted*; one of another variant only where nothing says which. Raises UsageError."""
    of = [
        (blob, _plain(p.os, p.architecture, p.variant)) for blob in index if (p := blob.platform) is not None
    ]
    exact = [blob for blob, found in of if found == wanted]
    alike = [blob for blob, found in of if found[:2] == wanted[:2]] if not wanted.variant else []
    if not (exact or alike):
        there = ", ".join(sorted({str(found) for _, found in of if found.os != "unknown"}))[:300]
        raise UsageError(
            "image.platform",
            f"no matching manifest for {wanted} in the manifest list entries; there is {there}",
        )
    return (exact or alike)[0]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def check_hash(data: bytes, digest: str, what: str) -> None:
    """Raises PeerError("registry.lie")."""
    if (found := digest_of(data)) != digest:
        raise lie(what, found, digest)


def lie(what: str, found: str, digest: str) -> PeerError:
    return PeerError("registry.lie", f"the registry sent a {what} that hashes to {found} and not to {digest}")


def _bad(why: str) -> PeerError:
    return PeerError("registry.manifest", f"the registry cannot be used: {why}")


# -- who asks ----------------------------------------------------------------------------------------
class Credentials(msgspec.Struct, frozen=True):
    """What ``docker login`` keeps, as clients send it (Engine API v1.44, "Authentication")."""

    username: str = ""
    password: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    @property
    def basic(self) -> str:
        """As a header (RFC 7617), "" without a user."""
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return f"Basic {pair}" if self.username else ""


def credentials(header: str) -> Credentials:
    """Of ``X-Registry-Auth``, base64 of JSON. Raises UsageError("registry.auth")."""
    try:
        text = base64.b64decode(header[:65536].replace("-", "+").replace("_", "/") + "==")
        return msgspec.json.decode(text, type=Credentials) if text else Credentials()
    except (ValueError, msgspec.MsgspecError) as error:
        raise UsageError("registry.auth", f"the header X-Registry-Auth cannot be read: {error}") from None


class Challenge(NamedTuple):
    """``WWW-Authenticate`` (RFC 7235), with what registries put in it."""

    scheme: str
    """``basic``, ``bearer``, or ``""`` for none of them."""
    realm: str = ""
    service: str = ""
    scope: str = ""


_PAIR = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s",]+))')


def challenge(header: str) -> Challenge:
    scheme, _, rest = header[:4096].partition(" ")
    pairs = {key.lower(): quoted or plain for key, quoted, plain in _PAIR.findall(rest)}
    if scheme.lower() not in ("basic", "bearer"):
        return Challenge("")
    return Challenge(scheme.lower(), *(pairs.get(key, "") for key in ("realm", "service", "scope")))


class _Fault(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Faults(msgspec.Struct):
    errors: list[_Fault] = []


def fault(body: bytes) -> str:
    """``manifest unknown: manifest unknown``, as docker prints it; ``""`` for what cannot be read."""
    try:
        found = msgspec.json.decode(body, type=_Faults).errors[:3]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    said = [f"{each.code.lower().replace('_', ' ')}: {each.message}"[:300] for each in found]
    return ", ".join("".join(ch if ch.isprintable() else " " for ch in one) for one in said)


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def token(body: bytes) -> str:
    """Raises PeerError("registry.token")."""
    try:
        found = msgspec.json.decode(body, type=_Token)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = _Token()
    bearer = found.token or found.access_token
    if not re.fullmatch(r"[\x21-\x7e]{1,65536}", bearer):
        raise PeerError("registry.token", "the registry's token server answered without a token")
    return bearer
