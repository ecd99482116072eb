"""What a stream between two peers is for: its first frame says so. Spec: docs/spec/01-frames.md."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from dockage.domain.deployment import GRANT_MAX
from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId

from .reading import decoded

HEADER_MAX = 512


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the headers below."""


class Messages(Header, frozen=True, tag="messages"):
    """Envelopes follow, one a frame, until the sender finishes. Nothing comes back."""


class Directory(Header, frozen=True, tag="directory"):
    """One request to a market node follows, and its answer."""


class Index(Header, frozen=True, tag="index"):
    """One request to an index of offers follows, and its answer (spec 03b)."""


class Engine(Header, frozen=True, tag="engine"):
    """One HTTP/1.1 exchange of the Docker Engine API with the lease's engine."""

    lease: LeaseId


class Tunnel(Header, frozen=True, tag="tunnel"):
    """Raw bytes to and from a TCP port of a container."""

    lease: LeaseId
    container: str
    """Full id."""
    port: int
    grant: bytes = b""
    """From anybody but the lease's tenant: the tenant's word (``grants.py``)."""


class Datagrams(Header, frozen=True, tag="datagrams"):
    """Datagrams, one a frame, to and from a UDP port of a container; one flow a stream."""

    lease: LeaseId
    container: str
    """Full id."""
    port: int
    grant: bytes = b""


class Bundle(Header, frozen=True, tag="bundle"):
    """Many tunnels and flows of datagrams in one stream (``bundles.py``); each begins with its own header."""


class Layers(Header, frozen=True, tag="layers"):
    """One image by content (docs/spec/06-images.md)."""

    lease: LeaseId


class Seed(Header, frozen=True, tag="seed"):
    """Layers for another provider of the same tenant: its ``wanted`` follows, then chunks come back (spec 06)."""

    lease: LeaseId
    """At the provider that is asked."""
    grant: bytes


class Fence(Header, frozen=True, tag="fence"):
    """The tenant's word that grants of an older epoch are void on this lease. The same frame comes back once it is
    on disk and what they had opened is cut."""

    lease: LeaseId
    epoch: int


class EndLease(Header, frozen=True, tag="end"):
    """From the holder of a grant: end this lease as its tenant could. The same frame comes back once it is on disk."""

    lease: LeaseId
    grant: bytes


class Deputy(Header, frozen=True, tag="deputy"):
    """A linked machine tells its deputy something, or asks for the term: one frame, and one as the answer
    (``mandates.py``)."""


class DeputyImage(Header, frozen=True, tag="deputy-image"):
    """A linked machine leaves one image with its deputy, by content (docs/spec/06-images.md)."""


class Publish(Header, frozen=True, tag="publish"):
    """A deployment's document for a gateway: one frame, and one frame as the answer (``documents.py``)."""

    lease: LeaseId
    """At the gateway: what the traffic is billed to."""
    letter: bytes = b""
    """From a deputy: its tenant's word (``letters.py``)."""


class Watch(Header, frozen=True, tag="watch"):
    """What a gateway sees of the deployment at this lease: frames of ``Signs``, until the watcher leaves."""

    lease: LeaseId


class Observe(Header, frozen=True, tag="observe"):
    """Where do you see me? One ``Observed`` comes back."""


class Pairing(Header, frozen=True, tag="pairing"):
    """Two machines of one user are linked (docs/spec/11-link.md)."""

    number: str
    """Of the code that the other side shows now."""


class Own(Header, frozen=True, tag="own"):
    """One linked machine asks another what it sells to it; one answer comes back (docs/spec/11-link.md)."""


AnyHeader: TypeAlias = (
    Messages
    | Directory
    | Index
    | Engine
    | Tunnel
    | Datagrams
    | Bundle
    | Layers
    | Seed
    | Fence
    | EndLease
    | Deputy
    | DeputyImage
    | Publish
    | Watch
    | Observe
    | Pairing
    | Own
)

OBSERVED_MAX = 128


class Observed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    address: Annotated[str, msgspec.Meta(max_length=64)]
    """``ip:port``; "" if the connection is relayed."""
    relay_port: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]
    """Of the relay that the answering node runs for others, over plain HTTP at its own address; 0 if none."""


_decoder: msgspec.msgpack.Decoder[AnyHeader] = msgspec.msgpack.Decoder(AnyHeader)
_encoder = msgspec.msgpack.Encoder()
_observed = msgspec.msgpack.Decoder(Observed)


def encode_header(header: AnyHeader) -> bytes:
    return _encoder.encode(header)


def decode_header(frame: bytes) -> AnyHeader:
    """Raises PeerError("stream.header")."""
    header = decoded("stream.header", "not a stream header of dockage/1", _decoder, frame)
    if len(getattr(header, "lease", bytes(16))) != 16:
        raise PeerError("stream.header", "a lease id has 16 bytes")
    if isinstance(header, Tunnel | Datagrams) and not (
        0 < header.port < 65536 and len(header.container) == 64
    ):
        raise PeerError("stream.header", "a tunnel names a full container id and a port")
    if not 0 <= getattr(header, "epoch", 0) < 1 << 63 or len(_word(header)) > GRANT_MAX:
        raise PeerError("stream.header", "an epoch, a grant or a letter beyond all measure")
    return header


def _word(header: AnyHeader) -> bytes:
    return getattr(header, "grant", b"") or getattr(header, "letter", b"")


def encode_observed(answer: Observed) -> bytes:
    return _encoder.encode(answer)


def decode_observed(frame: bytes) -> Observed:
    """Raises PeerError("stream.observed")."""
    return decoded("stream.observed", "not an answer to where we are seen", _observed, frame)
