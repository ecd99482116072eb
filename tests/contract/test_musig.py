"""MuSig2 behind ``Curve``: the vectors of BIP327, both bindings across each other, and a signer of pure Python.

``ecc.ecc.musig2`` shares no line with what we ship: its nonces, its challenge and its partial signatures are computed
in Python. It is held to the signing vectors here, so that it may judge the bindings.
"""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from btclib_secp256k1 import musig
from ecc.ecc import musig2 as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.adapters.secp import Secp
from dockage.adapters.secp.coincurve import CoincurveSecp
from dockage.domain.errors import PeerError
from dockage.protocol.bitcoin.curve import Curve, Half, Joint, Part

VECTORS = Path(__file__).parents[1] / "bitcoin" / "vectors"
SIGN, SUM, TWEAK = (
    json.loads((VECTORS / f"bip327_{name}.json").read_text()) for name in ("sign_verify", "sig_agg", "tweak")
)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
secrets = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)
BINDINGS: dict[str, Curve] = {"btclib": Secp(), "coincurve": CoincurveSecp()}
A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))
SECP = BINDINGS["btclib"]
JOINT = Joint((SECP.pubkey(A), SECP.pubkey(B)), bytes([7]) * 32, bytes([9]) * 32)


@pytest.fixture(params=BINDINGS)
def curve(request: pytest.FixtureRequest) -> Curve:
    return BINDINGS[request.param]


def pick(source: dict[str, Any], name: str, indices: list[int]) -> list[bytes]:
    return [bytes.fromhex(source[name][n]) for n in indices]


# -- the vectors -------------------------------------------------------------------------------------
@pytest.mark.parametrize("case", SIGN["valid_test_cases"], ids=lambda case: case["expected"][:8])
def test_the_oracle_signs_as_bip327_and_the_binding_verifies_it(case: dict[str, Any]) -> None:
    keys = pick(SIGN, "pubkeys", case["key_indices"])
    nonces = pick(SIGN, "pnonces", case["nonce_indices"])
    together, message = (
        bytes.fromhex(SIGN["aggnonces"][case["aggnonce_index"]]),
        pick(SIGN, "msgs", [case["msg_index"]])[0],
    )
    expected = bytes.fromhex(case["expected"])
    context = oracle.SessionContext(together, keys, [], [], message)
    secnonce = bytearray.fromhex(SIGN["secnonces"][0])
    assert oracle.sign(secnonce, int(SIGN["sk"], 16), context) == expected
    assert bytes(musig.nonce_agg(nonces)) == together
    if len(message) == 32:  # what libsecp256k1 takes, and all that bitcoin signs
        cache = musig.KeyAggCache(keys)
        session = musig.Session(together, message, cache)
        at = case["signer_index"]
        assert session.partial_sig_verify(expected, nonces[at], keys[at], cache)


@pytest.mark.parametrize("case", SIGN["verify_fail_test_cases"], ids=lambda case: case["comment"][:20])
def test_the_binding_refuses_the_wrong_halves_of_bip327(case: dict[str, Any]) -> None:
    keys = pick(SIGN, "pubkeys", case["key_indices"])
    nonces, message = pick(SIGN, "pnonces", case["nonce_indices"]), pick(SIGN, "msgs", [case["msg_index"]])[0]
    cache = musig.KeyAggCache(keys)
    session = musig.Session(musig.nonce_agg(nonces), message, cache)
    at, half = case["signer_index"], bytes.fromhex(case["sig"])
    try:
        assert not session.partial_sig_verify(half, nonces[at], keys[at], cache)
    except ValueError:
        assert int.from_bytes(half, "big") >= ORDER


@pytest.mark.parametrize("case", SUM["valid_test_cases"], ids=lambda case: case["expected"][:8])
def test_the_binding_adds_the_halves_of_bip327(case: dict[str, Any]) -> None:
    keys = pick(SUM, "pubkeys", case["key_indices"])
    cache = musig.KeyAggCache(keys)
    for tweak, x_only in zip(pick(SUM, "tweaks", case["tweak_indices"]), case["is_xonly"], strict=True):
        (cache.pubkey_xonly_tweak_add if x_only else cache.pubkey_ec_tweak_add)(tweak)
    session = musig.Session(bytes.fromhex(case["aggnonce"]), bytes.fromhex(SUM["msg"]), cache)
    signature = bytes(session.partial_sig_agg(pick(SUM, "psigs", case["psig_indices"])))
    assert signature == bytes.fromhex(case["expected"])
    assert SECP.verify(bytes(cache.pubkey_get())[-32:], bytes.fromhex(SUM["msg"]), signature)


@pytest.mark.parametrize("case", TWEAK["valid_test_cases"], ids=lambda case: case["comment"][:24])
def test_the_binding_verifies_the_tweaked_halves_of_bip327(case: dict[str, Any]) -> None:
    keys, nonces = pick(TWEAK, "pubkeys", case["key_indices"]), pick(TWEAK, "pnonces", case["nonce_indices"])
    cache = musig.KeyAggCache(keys)
    for tweak, x_only in zip(pick(TWEAK, "tweaks", case["tweak_indices"]), case["is_xonly"], strict=True):
        (cache.pubkey_xonly_tweak_add if x_only else cache.pubkey_ec_tweak_add)(tweak)
    session = musig.Session(bytes.fromhex(TWEAK["aggnonce"]), bytes.fromhex(TWEAK["msg"]), cache)
    at = case["signer_index"]
    assert session.partial_sig_verify(bytes.fromhex(case["expected"]), nonces[at], keys[at], cache)


# -- ours --------------------------------------------------------------------------------------------
def part(secret: bytes, half: Half, theirs: bytes) -> Part:
    return Part(SECP.pubkey(secret), half.nonce, half.sign(theirs))


def output_key(joint: Joint) -> bytes:
    return SECP.tweak(SECP.aggregate(joint.keys), joint.tweak)[0]


@given(secrets, secrets, digests, digests, st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_bindings_sign_with_each_other(
    one: bytes, two: bytes, tweak: bytes, digest: bytes, turn: bool
) -> None:
    keys = (SECP.pubkey(one), SECP.pubkey(two))
    joint = Joint(keys[::-1] if turn else keys, tweak, digest)
    for first, second in ((x, y) for x in BINDINGS.values() for y in BINDINGS.values()):
        ours, theirs = first.half(one, joint), second.half(two, joint)
        parts = part(one, ours, theirs.nonce), part(two, theirs, ours.nonce)
        signature = first.join(joint, *parts)
        assert signature == second.join(joint, *parts[::-1])
        assert SECP.verify(output_key(joint), digest, signature)


@given(secrets, secrets, digests, digests)
@settings(max_examples=25, deadline=None)
def test_the_bindings_sign_with_a_signer_of_pure_python(
    one: bytes, two: bytes, tweak: bytes, digest: bytes
) -> None:
    keys = (SECP.pubkey(one), SECP.pubkey(two))
    joint = Joint(keys, tweak, digest)
    for curve in BINDINGS.values():
        ours = curve.half(one, joint)
        secnonce, nonce = oracle.nonce_gen(int.from_bytes(two, "big"), keys[1])
        together = oracle.nonce_agg_var([ours.nonce, nonce])
        context = oracle.SessionContext(together, oracle.key_sort(keys), [tweak], [True], digest)
        theirs = Part(keys[1], nonce, oracle.sign(secnonce, int.from_bytes(two, "big"), context))
        mine = part(one, ours, nonce)
        assert oracle.partial_sig_verify_(mine.signature, mine.nonce, mine.key, context)
        signature = curve.join(joint, mine, theirs)
        assert oracle.partial_sig_agg([mine.signature, theirs.signature], context).serialize() == signature
        assert SECP.verify(output_key(joint), digest, signature)


# -- lies --------------------------------------------------------------------------------------------
def halves(curve: Curve, joint: Joint = JOINT) -> tuple[Part, Part]:
    one, two = curve.half(A, joint), curve.half(B, joint)
    return part(A, one, two.nonce), part(B, two, one.nonce)


def refused(curve: Curve, one: Part, two: Part) -> str:
    with pytest.raises(PeerError) as caught:
        curve.join(JOINT, one, two)
    return caught.value.code


@pytest.mark.parametrize(
    "forged", [bytes(32), b"\1" * 32, b"\xff" * 32, ORDER.to_bytes(32, "big"), b"", bytes(31), bytes(64)]
)
def test_a_forged_half_is_refused(curve: Curve, forged: bytes) -> None:
    ours, theirs = halves(curve)
    assert refused(curve, ours, theirs._replace(signature=forged)) == "close.partial"


@pytest.mark.parametrize(
    "other",
    [
        JOINT._replace(digest=bytes(32)),
        JOINT._replace(tweak=bytes([8]) * 32),
        JOINT._replace(keys=(SECP.pubkey(B), SECP.pubkey(C))),
    ],
    ids=["another transaction", "another channel", "another pair"],
)
def test_a_half_for_something_else_is_refused(curve: Curve, other: Joint) -> None:
    ours = curve.half(A, JOINT)
    theirs = curve.half(B, other)
    parts = part(B, theirs, ours.nonce), part(A, ours, theirs.nonce)
    assert refused(curve, *parts) == "close.partial"


def test_a_half_of_another_session_is_refused(curve: Curve) -> None:
    (_, earlier), (ours, _) = halves(curve), halves(curve)
    assert refused(curve, ours, earlier) == "close.partial"


def test_the_half_of_somebody_else_is_refused(curve: Curve) -> None:
    ours, theirs = halves(curve)
    assert refused(curve, ours, theirs._replace(key=SECP.pubkey(C))) == "close.partial"


@pytest.mark.parametrize(
    "nonce", [b"", bytes(66), b"\2" * 65, b"\2" * 67, b"\4" * 66, (b"\2" + b"\xff" * 32) * 2]
)
def test_a_nonce_that_is_none_is_refused_and_costs_ours(curve: Curve, nonce: bytes) -> None:
    half = curve.half(A, JOINT)
    with pytest.raises(PeerError) as caught:
        half.sign(nonce)
    assert caught.value.code == "close.nonce"
    with pytest.raises(ValueError, match=r"spent|used"):
        half.sign(half.nonce)


def test_a_nonce_signs_once(curve: Curve) -> None:
    half, theirs = curve.half(A, JOINT), curve.half(B, JOINT).nonce
    half.sign(theirs)
    for other in (theirs, curve.half(B, JOINT).nonce):
        with pytest.raises(ValueError, match=r"spent|used"):
            half.sign(other)


def test_a_nonce_that_is_forgotten_signs_never(curve: Curve) -> None:
    half = curve.half(A, JOINT)
    half.forget()
    half.forget()
    with pytest.raises(ValueError, match=r"spent|used"):
        half.sign(curve.half(B, JOINT).nonce)


def test_no_two_halves_have_one_nonce(curve: Curve) -> None:
    assert len({curve.half(A, JOINT).nonce for _ in range(50)}) == 50


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_secret_nonce_can_not_be_written_down(copied: Any) -> None:
    with pytest.raises(TypeError):
        copied(SECP.half(A, JOINT)._nonce)  # type: ignore[attr-defined]
    if copied is not copy.copy:
        with pytest.raises(TypeError):
            copied(SECP.half(A, JOINT))


@pytest.mark.parametrize("key", [b"", bytes(33), b"\2" + b"\xff" * 32])
def test_a_bad_key_begins_nothing(curve: Curve, key: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        curve.half(A, JOINT._replace(keys=(SECP.pubkey(A), key)))
    assert caught.value.code == "channel.key"
