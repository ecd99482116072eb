"""The funding script, its descriptor and addresses, against the vectors of the BIPs and fixed examples."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcoin.parts import Pair, vectors
from dockage.adapters.secp import Secp
from dockage.domain.errors import UsageError
from dockage.protocol.bitcoin import address
from dockage.protocol.bitcoin.descriptor import checksum, descriptor
from dockage.protocol.bitcoin.hashes import tagged_hash
from dockage.protocol.bitcoin.script import branch_hash, leaf_hash, push_number, refund_leaf, taproot_script

TREES = vectors("bip341.json")["scriptPubKey"]


def root(tree: Any) -> bytes:
    if tree is None:
        return b""
    if isinstance(tree, dict):
        return leaf_hash(bytes.fromhex(tree["script"]))
    return branch_hash(root(tree[0]), root(tree[1]))


def known_leaves(tree: Any) -> bool:
    """One vector uses leaf version 250, which we have no use for."""
    if isinstance(tree, dict):
        return bool(tree["leafVersion"] == 192)
    return tree is None or all(map(known_leaves, tree))


@pytest.mark.parametrize("vector", [v for v in TREES if known_leaves(v["given"]["scriptTree"])])
def test_bip341_output_keys_and_addresses(vector: Any) -> None:
    internal = bytes.fromhex(vector["given"]["internalPubkey"])
    tweak = tagged_hash("TapTweak", internal + root(vector["given"]["scriptTree"]))
    assert tweak.hex() == vector["intermediary"]["tweak"]
    script = taproot_script(Secp().tweak(internal, tweak)[0])
    assert script.hex() == vector["expected"]["scriptPubKey"]
    assert address.encode(script, "main") == vector["expected"]["bip350Address"]


def test_both_control_blocks_lead_to_the_output_key() -> None:
    funding = Pair().commitment.funding
    for leaf in (funding.close, funding.refund):
        sibling = leaf.control[33:]
        assert branch_hash(leaf_hash(leaf.script), sibling) == funding.root
        tweak = tagged_hash("TapTweak", funding.internal_key + funding.root)
        key, parity = Secp().tweak(leaf.control[1:33], tweak)
        assert (taproot_script(key), leaf.control[0]) == (funding.script, 0xC0 | parity)


@pytest.mark.parametrize(
    ("n", "pushed"),
    [
        (1, "51"),
        (16, "60"),
        (17, "0111"),
        (127, "017f"),
        (128, "028000"),
        (255, "02ff00"),
        (256, "020001"),
        (32767, "02ff7f"),
        (32768, "03008000"),
        (900_000, "03a0bb0d"),
        (499_999_999, "04ff64cd1d"),
    ],
)
def test_script_numbers_are_minimal(n: int, pushed: str) -> None:
    assert push_number(n).hex() == pushed


def test_the_refund_leaf_is_the_miniscript_it_says() -> None:
    key = bytes([3]) * 32
    assert refund_leaf(key, 900_000).hex() == "20" + "03" * 32 + "ad" + "03a0bb0d" + "b1"


def test_descriptor_checksum_of_bip380() -> None:
    """With 0, 1 and 2 characters left after the last group of three."""
    wide = (
        "wpkh([d34db33f/84h/0h/0h]xpub6DJ2dNUysrn5Vt36jH2KLBT2i1auw1tTSSomg8PhqNiUtx8QX2SvC9nrHu81fT41fvDUnhMjEzQgXnQ"
        "jKEu3oaqMSzhSrHMxyyoEAmUHQbY/0/*)"
    )
    old = (
        "pkh([d34db33f/44'/0'/0']xpub6ERApfZwUNrhLCkDtcHTcxd75RbzS1ed54G1LkBUHQVHQKqhMkhgbmJbZRkrgZw4koxb5JaHWkY4ALHY2"
        "grBGRjaDMzQLcgJvLJuZZvRcEL/1/*)"
    )
    found = [(len(line) % 3, checksum(line)) for line in (wide, "raw(deadbeef)", old)]
    assert found == [(0, "cjjspncu"), (1, "89f8spxm"), (2, "ml40v0wf")]


@pytest.mark.parametrize(("expiry", "check"), [(999, "v2t7604j"), (1000, "0zz4u0jj"), (10_000, "y7595fhg")])
def test_the_checksum_of_our_own_lines(expiry: int, check: str) -> None:
    """Their last group has three characters, one and two; test_regtest asks a node about the same three."""
    pair = Pair(expiry=expiry)
    assert descriptor(pair.terms, pair.commitment.funding)[-8:] == check


def test_a_descriptor_has_the_public_key_or_the_secret_one() -> None:
    pair = Pair()
    tenant, provider = pair.terms.tenant_key[1:].hex(), pair.terms.provider_key[1:].hex()
    line, _, check = descriptor(pair.terms, pair.commitment.funding).partition("#")
    internal = pair.commitment.funding.internal_key.hex()
    leaves = f"{{and_v(v:pk({tenant}),pk({provider})),and_v(v:pk({tenant}),after(900000))}}"
    assert line == f"tr({internal},{leaves})"
    assert check == checksum(line)
    assert tenant not in descriptor(pair.terms, pair.commitment.funding, "cWIF")


WITNESS_PROGRAMS = st.one_of(
    st.binary(min_size=20, max_size=20).map(lambda p: b"\0\x14" + p),
    st.binary(min_size=32, max_size=32).map(lambda p: b"\0\x20" + p),
    st.binary(min_size=32, max_size=32).map(lambda p: b"\x51\x20" + p),
)


@given(WITNESS_PROGRAMS, st.sampled_from(sorted(address.PREFIXES)))
def test_addresses_come_back(script: bytes, network: str) -> None:
    text = address.encode(script, network)
    assert address.decode(text, network) == script == address.decode(text.upper(), network)


@pytest.mark.parametrize(
    ("script", "network", "text"),
    [
        (
            "0014751e76e8199196d454941c45d1b3a323f1433bd6",
            "main",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        ),
        (
            "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
            "test",
            "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        ),
        (
            "5120" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
            "main",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        ),
    ],
)
def test_the_addresses_of_bip173_and_bip350(script: str, network: str, text: str) -> None:
    """The two kinds have checksums of their own; with any other constant an address would still come back."""
    assert address.encode(bytes.fromhex(script), network) == text
    assert address.decode(text, network).hex() == script


@given(WITNESS_PROGRAMS, st.data())
def test_one_wrong_character_is_always_noticed(script: bytes, data: st.DataObject) -> None:
    text = address.encode(script, "regtest")
    at = data.draw(st.integers(0, len(text) - 1))
    wrong = text[:at] + data.draw(st.characters().filter(lambda c: c.lower() != text[at])) + text[at + 1 :]
    with pytest.raises(UsageError, match=r"not a segwit address|another network"):
        address.decode(wrong, "regtest")


def crafted(data: list[int], constant: int, prefix: str = "bc") -> str:
    """With a right checksum, whatever else is wrong."""
    check = address._checksum(prefix, data, constant)
    return prefix + "1" + "".join(address._CHARSET[d] for d in data + check)


KEY = address._regroup(bytes(range(32)), 8, 5)


@pytest.mark.parametrize(
    "text",
    [
        crafted([1, *KEY], address._BECH32),
        crafted([0, *KEY], address._BECH32M),
        crafted([17, *KEY], address._BECH32M),
        crafted([31, *KEY], address._BECH32M),
        crafted([2, *KEY], address._BECH32M),
        crafted([1, *KEY[:-1], KEY[-1] | 1], address._BECH32M),
        crafted([1, *KEY, 0], address._BECH32M),
        crafted([1, 0, 0], address._BECH32M),
        crafted([0, *[0] * 26], address._BECH32),
        crafted([1, *[0] * 500], address._BECH32M),
        crafted([1], address._BECH32M),
        crafted([], address._BECH32M),
        crafted([1, *KEY], address._BECH32M, "xx"),
        crafted([1, *KEY], address._BECH32M)[3:],
        "bc1",
        "1",
        "",
    ],
)
def test_a_right_checksum_is_not_enough(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        address.decode(text, "main")
    assert caught.value.code == "address.invalid"


def test_upper_and_lower_case_do_not_mix() -> None:
    text = crafted([1, *KEY], address._BECH32M)
    assert address.decode(text, "main") == taproot_script(bytes(range(32)))
    with pytest.raises(UsageError, match="not a segwit address"):
        address.decode(text[:10] + text[10:].upper(), "main")


@given(st.text(max_size=100))
def test_no_text_breaks_the_decoder(text: str) -> None:
    with pytest.raises(UsageError):
        address.decode(text, "main")


def test_an_address_of_another_network_is_named_as_such() -> None:
    text = address.encode(Pair().commitment.funding.script, "main")
    with pytest.raises(UsageError) as caught:
        address.decode(text, "regtest")
    assert caught.value.code == "address.network"


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"\x6a\x01\x01",
        b"\0\x14" + bytes(21),
        b"\x6a\x14" + bytes(20),
        b"\x51\x20" + bytes(31),
        b"\0\x15" + bytes(21),
        b"\x51\x02\x4e\x73",
    ],
)
def test_a_script_without_an_address_is_refused(script: bytes) -> None:
    with pytest.raises(UsageError, match="no segwit address") as caught:
        address.encode(script, "main")
    assert caught.value.code == "address.script"
