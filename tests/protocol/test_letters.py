"""A tenant's word to gateways that its deputy may publish in its place."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from dockage.domain.errors import PeerError
from dockage.domain.units import SECOND, Instant
from dockage.protocol.letters import HORIZON, LETTER_MAX, SLACK, Letter, open_letter, sign_letter
from dockage.protocol.signed import Signed
from dockage.protocol.streams import HEADER_MAX, Publish, decode_header, encode_header
from dockage.testing.keys import MemoryKeys, verify

NOW = Instant(1_800_000_000 * SECOND)
TENANT, DEPUTY, OTHER = MemoryKeys(1), MemoryKeys(2), MemoryKeys(3)
LETTER = Letter(TENANT.node, DEPUTY.node, "n" * 64, Instant(NOW + HORIZON))


def refused(blob: bytes, deputy: MemoryKeys = DEPUTY, now: int = NOW) -> str:
    with pytest.raises(PeerError) as caught:
        open_letter(blob, deputy.node, Instant(now), verify)
    return caught.value.code


def signed(letter: Letter = LETTER, keys: MemoryKeys = TENANT) -> bytes:
    return sign_letter(letter, keys.sign)


def test_what_was_signed_is_what_is_read_and_fits_into_a_header() -> None:
    assert open_letter(signed(), DEPUTY.node, NOW, verify) == LETTER
    header = Publish(b"l" * 16, signed())  # type: ignore[arg-type]
    assert len(encode_header(header)) <= HEADER_MAX
    assert decode_header(encode_header(header)) == header


def test_lies() -> None:
    _, signature = msgspec.msgpack.decode(signed())
    other = msgspec.msgpack.encode(replace(LETTER, name="bank"))
    assert refused(msgspec.msgpack.encode(Signed(other, signature))) == "letter.forged"
    assert refused(signed(), deputy=OTHER) == "letter.other"
    assert refused(signed(), now=LETTER.expires + SLACK) == "letter.expired"
    assert refused(signed(), now=NOW - 2 * SLACK) == "letter.expired", "too far ahead"
    assert refused(signed(replace(LETTER, name="../x"))) == "letter.malformed"
    assert refused(b"x" * (LETTER_MAX + 1)) == "letter.malformed"
