"""A tenant's word that another machine of its user may run a deployment in its place, and what the two say about it.

Spec: docs/spec/12-terms.md. Counterparts: ``node/deputy.py`` keeps mandates, ``daemon/deputies.py`` gives them. Like a
grant it names everything that it is about, and it has a version: an older one never replaces a newer one.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from dockage.domain.deployment import GRANT_MAX, NAME_MAX, is_name
from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import Instant, Msat, Sat

from .docker.recipe import CONTAINERS_MAX, RECIPE_MAX, Recipe, decode
from .letters import HORIZON, LETTER_MAX
from .reading import decoded
from .signed import Form, Verify

MANDATE_CONTEXT = b"dockage/1\0mandate\0"
MANDATE_MAX = 1_100_000
"""Bytes: a recipe, and the grants for all its leases."""
ANSWER_MAX = 8192
"""Bytes: the ids of all images that a recipe may name."""
LEASES_MAX = 64
_MONEY_MAX = 21_000_000 * 100_000_000 * 1000

Epoch = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""An image's id, without its prefix."""
Digests = Annotated[tuple[Digest, ...], msgspec.Meta(max_length=CONTAINERS_MAX)]


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Held(Part, frozen=True):
    """One lease that the tenant rents for the deployment itself."""

    provider: NodeKey
    lease: LeaseId
    grant: bytes
    """Of use ``end``: what the deputy shows there once it takes over."""


class Mandate(Part, frozen=True):
    tenant: NodeKey
    deputy: NodeKey
    name: str
    version: int
    expires: Instant
    budget: Sat
    """What all the deputy's leases for it may cost, in all."""
    hourly: Msat | None
    """What they together may cost an hour at worst; None: only the deployment's own labels say."""
    leases: tuple[Held, ...]
    recipe: bytes
    """What is to run, as ``recipe.encode`` writes it; empty: the mandate is withdrawn."""
    letter: bytes = b""
    """For gateways, so that the tenant's public names go on (``letters.py``)."""

    @property
    def is_sane(self) -> bool:
        return (
            (len(self.tenant), len(self.deputy)) == (32, 32)
            and is_name(self.name)
            and 1 <= self.version < 1 << 63
            and 0 <= self.budget * 1000 <= _MONEY_MAX
            and 0 <= (self.hourly or 0) <= _MONEY_MAX
            and len(self.leases) <= LEASES_MAX
            and all((len(x.provider), len(x.lease)) == (32, 16) for x in self.leases)
            and all(len(x.grant) <= GRANT_MAX for x in self.leases)
            and len(self.recipe) <= RECIPE_MAX
            and len(self.letter) <= LETTER_MAX
        )

    @property
    def is_withdrawn(self) -> bool:
        return not self.recipe


_form = Form("mandate.malformed", "not a mandate", Mandate, MANDATE_CONTEXT)
sign_mandate = _form.sign


def open_mandate(
    blob: bytes, tenant: NodeKey, deputy: NodeKey, now: Instant, verify: Verify
) -> tuple[Mandate, Recipe | None]:
    """Its content and its recipe, None where it is withdrawn, if *tenant* shows it to *deputy*. Raises
    PeerError("mandate.oversized" | "mandate.malformed" | "mandate.other" | "mandate.forged" | "mandate.expired" |
    "recipe.malformed")."""
    if len(blob) > MANDATE_MAX:
        raise PeerError("mandate.oversized", f"a mandate has at most {MANDATE_MAX} bytes")
    mandate, signed = _form.read(blob)
    if not mandate.is_sane:
        raise PeerError("mandate.malformed", "a mandate with an impossible value")
    if mandate.tenant != tenant or mandate.deputy != deputy:
        raise PeerError("mandate.other", "the mandate is of somebody else, or for another deputy")
    if not _form.is_by(mandate.tenant, signed, verify):
        raise PeerError("mandate.forged", "the mandate is not signed by the tenant that it names")
    if not now < mandate.expires <= now + HORIZON:
        raise PeerError("mandate.expired", "the mandate is not valid now; the tenant gives a new one")
    return mandate, None if mandate.is_withdrawn else decode(mandate.recipe)


# -- what the two say ----------------------------------------------------------------------------------
class Give(Part, frozen=True, tag="mandate"):
    mandate: Annotated[bytes, msgspec.Meta(max_length=MANDATE_MAX)]


class AskTerm(Part, frozen=True, tag="term"):
    name: Annotated[str, msgspec.Meta(max_length=NAME_MAX)]
    epoch: Epoch
    serves: bool
    """The tenant's own copies do."""


class AskImages(Part, frozen=True, tag="images"):
    """Which of these are not there? They are left with the deputy before it is given a mandate that names them."""

    images: Digests


class Taken(Part, frozen=True, tag="taken"):
    version: int


class Said(Part, frozen=True, tag="said"):
    epoch: Epoch
    """That counts at the witness now."""
    yes: bool
    """The term is the asker's."""
    acts: bool
    """The deputy's own copies run."""


class Lacks(Part, frozen=True, tag="lacks"):
    images: Digests


class Refused(Part, frozen=True, tag="refused"):
    code: Annotated[str, msgspec.Meta(max_length=60)]
    message: Annotated[str, msgspec.Meta(max_length=500)]


Request: TypeAlias = Give | AskTerm | AskImages
Answer: TypeAlias = Taken | Said | Lacks | Refused
REQUEST_MAX = MANDATE_MAX + 64
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode_said(said: Request | Answer) -> bytes:
    return msgspec.msgpack.encode(said)


def decode_request(frame: bytes) -> Request:
    """Raises PeerError("mandate.malformed")."""
    return decoded("mandate.malformed", "not what a tenant asks its deputy", _request, frame)


def decode_answer(frame: bytes) -> Answer:
    """Raises PeerError("mandate.malformed")."""
    return decoded("mandate.malformed", "not what a deputy answers", _answer, frame)
