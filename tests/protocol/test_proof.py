"""Proofs of spec 04b: what a contradiction is, and every way to frame an honest provider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import UsageError
from dockage.domain.offer import Quote
from dockage.domain.pricing import Tariff, price
from dockage.domain.statement import GENESIS, Statement, digest
from dockage.domain.usage import Usage
from dockage.protocol import proof as proofs
from dockage.protocol.messages import SIGNING_CONTEXT, EndLease, encode_body
from dockage.testing.keys import MemoryKeys, verify

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "docs/spec/vectors/statements.json").read_text())
SPEC = (ROOT / "docs/spec/04b-statements.md").read_text()
PROVIDER, OTHER = MemoryKeys(1), MemoryKeys(2)
QUOTE = msgspec.msgpack.decode(bytes.fromhex(VECTORS["quote"]["body"]), type=Quote)
FIRST, SECOND = (
    msgspec.msgpack.decode(bytes.fromhex(v["body"]), type=Statement) for v in VECTORS["statements"]
)
LATER = msgspec.structs.replace(SECOND, seq=9, previous=bytes([9]) * 32)
change = msgspec.structs.replace


def signed(message: Any, by: MemoryKeys = PROVIDER) -> tuple[Any, bytes]:
    return message, by.sign(SIGNING_CONTEXT + encode_body(message))


def proven(first: Any, second: Any) -> str:
    """The code of what they prove, or of why they prove nothing."""
    proof = proofs.make(PROVIDER.node, signed(first), signed(second))
    try:
        return proofs.check(proofs.decode(proofs.encode(proof)), verify).reason.code
    except UsageError as error:
        return error.code


@pytest.mark.parametrize("vector", VECTORS["proofs"], ids=lambda v: v["proves"])
def test_the_vectors_prove_what_they_say(vector: dict[str, Any]) -> None:
    found = proofs.check(proofs.decode(vector["file"].encode()), verify)
    assert found.reason.code == vector["proves"]
    assert (found.provider, found.lease) == (PROVIDER.node, QUOTE.lease)
    assert proofs.encode(proofs.decode(vector["file"].encode())).decode() == vector["file"]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (FIRST, change(FIRST, containers=7), "statement.forked"),
        (FIRST, change(SECOND, previous=GENESIS), "statement.forked"),
        (FIRST, change(LATER, usage=Usage()), "statement.backwards"),
        (FIRST, change(LATER, at=FIRST.at - 1), "statement.backwards"),
        (QUOTE, change(SECOND, due=SECOND.due + 1), "statement.sum"),
    ],
)
def test_what_is_proven_whichever_comes_first(first: Any, second: Any, code: str) -> None:
    assert proven(first, second) == proven(second, first) == code
    assert f"`{code}`" in SPEC


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FIRST, FIRST),
        (FIRST, SECOND),
        (FIRST, LATER),
        (FIRST, change(FIRST, lease=b"another-lease-1.", containers=7)),
        (FIRST, change(FIRST, terms=digest(change(QUOTE, expires=QUOTE.expires + 1)), containers=7)),
        (QUOTE, SECOND),
        (QUOTE, change(QUOTE, tariff=Tariff(cpu_hour=1))),
        (change(QUOTE, tariff=Tariff(cpu_hour=1)), SECOND),
        (change(QUOTE, lease=b"another-lease-1."), change(SECOND, due=SECOND.due + 1)),
    ],
    ids=[
        "the same statement twice",
        "a statement and the next",
        "a statement and a later one",
        "two leases",
        "a lease id used again by another quote",
        "a quote and a true bill",
        "two quotes",
        "a quote that it is not by",
        "another lease's quote",
    ],
)
def test_what_an_honest_provider_can_sign_proves_nothing(first: Any, second: Any) -> None:
    assert proven(first, second) == proven(second, first) == "proof.nothing"


def test_a_signature_of_somebody_else_accuses_nobody() -> None:
    lie = change(FIRST, containers=7)
    for first, second in (
        (signed(FIRST), signed(lie, OTHER)),
        (signed(FIRST, OTHER), signed(lie)),
        (signed(FIRST), (lie, bytes(64))),
        (signed(FIRST), (lie, signed(FIRST)[1])),
    ):
        with pytest.raises(UsageError, match="not signed by the provider"):
            proofs.check(proofs.make(PROVIDER.node, first, second), verify)


def test_one_statement_in_two_spellings_is_no_contradiction() -> None:
    """msgpack can write 1 in five ways; only one of them is a message."""
    body = encode_body(FIRST)
    at = body.index(b"\x01", 27)  # seq
    longer = body[:at] + b"\xcc\x01" + body[at + 1 :]
    assert msgspec.msgpack.decode(longer, type=Statement) == FIRST
    second = proofs.Signed(longer.hex(), PROVIDER.sign(SIGNING_CONTEXT + longer).hex())
    proof = proofs.make(PROVIDER.node, signed(FIRST), signed(FIRST))
    with pytest.raises(UsageError, match="one encoding"):
        proofs.check(change(proof, second=second), verify)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"\xff", b"{" * 70_000, b'{"format": "dockage/1 proof"}']
)
def test_what_is_no_proof(text: bytes) -> None:
    with pytest.raises(UsageError, match="no proof of dockage/1"):
        proofs.decode(text)


def test_what_is_signed_must_be_a_bill_or_a_quote() -> None:
    other: Any = EndLease(FIRST.lease)
    with pytest.raises(UsageError, match="neither a statement nor a quote"):
        proofs.check(proofs.make(PROVIDER.node, signed(FIRST), signed(other)), verify)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, 3)), min_size=2, max_size=6), st.data())
def test_no_two_statements_of_an_honest_chain_prove_anything(
    ticks: list[tuple[int, int]], data: st.DataObject
) -> None:
    chain: list[Statement] = []
    used = Usage()
    for cpu, wait in ticks:
        used += Usage(cpu_ns=cpu)
        last = chain[-1] if chain else None
        chain.append(
            change(
                FIRST,
                seq=len(chain) + 1,
                previous=digest(last) if last else GENESIS,
                at=(last.at if last else FIRST.at) + wait,
                usage=used,
                due=price(used, QUOTE.tariff),
            )
        )
    first, second = data.draw(st.sampled_from(chain)), data.draw(st.sampled_from([QUOTE, *chain]))
    assert proven(first, second) == "proof.nothing"
