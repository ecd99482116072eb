"""Codes, cards and adverts: what is written is read back, and nothing else is taken."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import NodeKey
from dockage.protocol import adverts, own, pairing
from dockage.protocol.adverts import Advert
from dockage.protocol.own import MarketNode, Told
from dockage.protocol.pairing import Card

KEY = NodeKey(bytes(range(32)))
CARD = Card("desk", "", ("192.168.1.5:4711",))
SECRET = b"s" * 32
numbers, secrets = st.integers(0, 999), st.binary(min_size=4, max_size=4)


# -- codes -----------------------------------------------------------------------------------------------
@given(numbers, secrets)
def test_a_code_is_read_as_it_was_made(number: int, secret: bytes) -> None:
    text = pairing.new_code(number, secret)
    assert len(text) == len("742-lusab-gutih")
    for typed in (text, f" {text.upper()}\n", text.replace("-", " ")):
        assert pairing.read_code(typed) == pairing.Code(text)
    long = pairing.long_form(text, KEY, "http://198.51.100.7:3340", ["192.168.1.5:4711", "[fe80::1]:4711"])
    code = pairing.read_code(long)
    assert code == (text, KEY, "http://198.51.100.7:3340", ("192.168.1.5:4711", "[fe80::1]:4711"))
    assert code.number == f"{number:03}"


@given(secrets, secrets)
def test_each_secret_has_its_own_words(one: bytes, other: bytes) -> None:
    assert (pairing.new_code(1, one) == pairing.new_code(1, other)) is (one == other)


def test_a_proquint_is_that_of_its_inventor() -> None:
    """127.0.0.1 is lusab-babad (arXiv:0901.4016)."""
    assert pairing.new_code(7, bytes([127, 0, 0, 1])) == "007-lusab-babad"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "742",
        "742-lusab",
        "lusab-gutih",
        "42-lusab-gutih",
        "742-lusab-gutih-lusab",
        "742-lusab-gutix",
        "٧٤٢-lusab-gutih",
        f"742-lusab-gutih@{KEY.hex()}",
        f"742-lusab-gutih@{KEY.hex()}@",
        f"742-lusab-gutih@{KEY.hex()}@example.org:4711",
        f"742-lusab-gutih@{KEY.hex()[2:]}@192.168.1.5:4711",
        f"742-lusab-gutih@{KEY.hex()}@224.0.0.1:4711",
        "742-lusab-gutih@zz@192.168.1.5:4711",
        "x" * 100_000,
    ],
)
def test_what_is_no_code_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        pairing.read_code(text)
    assert caught.value.code == "link.code"
    assert "742-lusab-gutih is" in caught.value.message


# -- cards -----------------------------------------------------------------------------------------------
def test_a_card_is_shown_to_who_has_the_secret_and_only_in_its_role() -> None:
    frame = pairing.show(CARD, SECRET, b"guest")
    assert len(frame) <= pairing.FRAME_MAX
    assert pairing.open_shown(frame, SECRET, b"guest") == CARD
    assert pairing.open_shown(frame, SECRET, b"host") is None, "a mirror must not pass"
    assert pairing.open_shown(frame, b"t" * 32, b"guest") is None
    assert pairing.open_shown(pairing.wrong(), SECRET, b"guest") is None


@pytest.mark.parametrize(
    "card",
    [
        Card("", "", ()),
        Card("x" * 33, "", ()),
        Card("\x1b[2J", "", ()),
        Card("desk", "ftp://x", ()),
        Card("desk", "http://" + "x" * 300, ()),
        Card("desk", "", ("192.168.1.5:1",) * 9),
        Card("desk", "", ("router:53",)),
        Card("desk", "", ("0.0.0.0:53",)),
        Card("desk", "", ("[::1:53",)),
    ],
)
def test_a_card_with_nonsense_is_refused_although_its_sender_knows_the_code(card: Card) -> None:
    with pytest.raises(PeerError) as caught:
        pairing.open_shown(pairing.show(card, SECRET, b"guest"), SECRET, b"guest")
    assert caught.value.code == "link.malformed"


@given(st.binary(max_size=300))
def test_bytes_of_strangers_break_nothing(data: bytes) -> None:
    with suppress(PeerError):
        assert pairing.open_shown(data, SECRET, b"host") is None
    with suppress(PeerError):
        assert isinstance(own.decode(data), Told)


# -- what linked machines tell each other ----------------------------------------------------------------
def test_what_a_machine_tells_is_read_back_and_bounded() -> None:
    told = Told(True, b"r" * 2048, (MarketNode(KEY, ("192.168.1.5:4711",)),) * 16)
    data = own.encode(told)
    assert len(data) <= own.TOLD_MAX
    assert own.decode(data) == told
    for lie in (
        Told(True, b"r" * 2049),
        Told(True, b"", (MarketNode(KEY, ()),) * 17),
        Told(True, b"", (MarketNode(b"short", ()),)),
        Told(True, b"", (MarketNode(KEY, ("192.168.1.5:1",) * 9),)),
        Told(True, b"", (MarketNode(KEY, ("evil.example:80",)),)),
    ):
        with pytest.raises(PeerError):
            own.decode(msgspec.msgpack.encode(lie))


# -- adverts ---------------------------------------------------------------------------------------------
@given(st.binary(min_size=32, max_size=32), st.booleans(), st.sampled_from(["", "007", "742"]))
def test_an_advert_is_heard_as_it_was_said(key: bytes, market: bool, number: str) -> None:
    advert = Advert(NodeKey(key), "main", ("192.168.1.5:4711", "[fe80::1]:4712"), market, number)
    name = adverts.instance(advert.key)
    assert len(name.partition(".")[0]) <= 63
    assert adverts.decode(name, adverts.encode(advert)) == advert


GOOD = adverts.encode(Advert(KEY, "main", ("192.168.1.5:4711",)))
NAME = adverts.instance(KEY)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("short._dockage._udp.local.", {}),
        ("_dockage._udp.local.", {}),
        (NAME.replace("a", "1"), {}),
        (NAME, {b"v": b"2"}),
        (NAME, {b"v": None}),
        (NAME, {b"net": b"\xff\xfe"}),
        (NAME, {b"net": b"x" * 65}),
        (NAME, {b"pair": b"7a"}),
        (NAME, {b"net": b"\x1b[2J"}),
    ],
)
def test_an_advert_with_nonsense_is_not_heard(name: str, change: dict[bytes, bytes | None]) -> None:
    with pytest.raises(PeerError):
        adverts.decode(name, {**GOOD, **change})


@pytest.mark.parametrize(
    "address",
    [
        b"router:53",
        b"224.0.0.251:5353",
        b"0.0.0.0:1",
        b"10.0.0.1:0",
        b"10.0.0.1:65536",
        b"10.0.0.1:\xc2\xb2",
        b"::1:5",
    ],
)
def test_an_address_that_is_no_machines_is_left_out(address: bytes) -> None:
    assert adverts.decode(NAME, {**GOOD, b"0": address}).direct == ()


@given(
    st.dictionaries(
        st.sampled_from([b"v", b"net", b"market", b"pair", b"0", b"1"]), st.none() | st.binary(max_size=70)
    )
)
def test_whatever_is_said_on_the_network_breaks_nothing(said: dict[bytes, bytes | None]) -> None:
    with suppress(PeerError):
        assert len(adverts.decode(NAME, {**GOOD, **said}).direct) <= adverts.ADDRESSES_MAX
