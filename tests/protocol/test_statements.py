"""The statements of spec 04b: hashes, prices, the chain, and equivocation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dockage.domain import statement as st
from dockage.domain.offer import Quote
from dockage.domain.pricing import Tariff, price
from dockage.domain.resources import Resources
from dockage.domain.statement import GENESIS, Statement, View, digest, fault
from dockage.domain.units import GIB, SECOND, Duration
from dockage.domain.usage import Usage
from dockage.protocol.messages import SIGNING_CONTEXT
from dockage.testing.keys import MemoryKeys

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "docs/spec/vectors/statements.json").read_text())
SPEC = (ROOT / "docs/spec/04b-statements.md").read_text()
TARIFF = Tariff(**VECTORS["tariff"]["fields"])
FIRST, SECOND_ONE = (
    msgspec.msgpack.decode(bytes.fromhex(v["body"]), type=Statement) for v in VECTORS["statements"]
)
QUOTE = msgspec.msgpack.decode(bytes.fromhex(VECTORS["quote"]["body"]), type=Quote)
LIMITS = Resources(1500, 1 * GIB, 1 * GIB)
SEEN = View(2 * GIB, 2 * GIB, Duration(3600 * SECOND))


def test_the_encoding_of_a_tariff_and_the_hash_of_a_quote() -> None:
    assert msgspec.msgpack.encode(TARIFF).hex() == VECTORS["tariff"]["encoded"]
    assert digest(QUOTE).hex() == VECTORS["quote"]["sha256"]
    assert QUOTE.tariff == TARIFF
    assert FIRST.terms == SECOND_ONE.terms == digest(QUOTE)


@pytest.mark.parametrize("vector", VECTORS["prices"], ids=lambda v: f"{v['msat']} msat")
def test_prices(vector: dict[str, Any]) -> None:
    assert price(Usage(**vector["usage"]), Tariff(**vector["tariff"])) == vector["msat"]


@pytest.mark.parametrize("vector", VECTORS["statements"], ids=lambda v: v["sha256"][:8])
def test_statements_are_hashed_signed_and_priced_as_the_spec_says(vector: dict[str, Any]) -> None:
    body = bytes.fromhex(vector["body"])
    statement = msgspec.msgpack.decode(body, type=Statement)
    assert digest(statement).hex() == vector["sha256"]
    assert statement.previous.hex() == vector["previous"]
    assert statement.due == vector["due_msat"] == price(statement.usage, TARIFF)
    assert MemoryKeys(1).sign(SIGNING_CONTEXT + body).hex() == vector["signature"]


def test_the_vectors_follow_each_other() -> None:
    assert FIRST.previous == GENESIS
    assert SECOND_ONE.previous == digest(FIRST)
    assert fault(FIRST, None, LIMITS, QUOTE, SEEN) is None
    assert fault(SECOND_ONE, FIRST, LIMITS, QUOTE, SEEN) is None


def changed(**fields: Any) -> Statement:
    return msgspec.structs.replace(SECOND_ONE, **fields)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (FIRST, "statement.replayed"),
        (changed(previous=GENESIS), "statement.forked"),
        (changed(at=FIRST.at - 1), "statement.backwards"),
        (changed(usage=Usage()), "statement.backwards"),
        (changed(terms=GENESIS), "statement.terms"),
        (changed(due=SECOND_ONE.due + 1), "statement.sum"),
        (changed(due=SECOND_ONE.due - 1), "statement.sum"),
    ],
)
def test_each_fault_is_found_in_the_order_of_the_spec(statement: Statement, code: str) -> None:
    last = SECOND_ONE if statement is FIRST else FIRST
    found = fault(statement, last, LIMITS, QUOTE, SEEN)
    assert found is not None
    assert found.code == code
    assert f"`{code}`" in SPEC


def test_two_statements_with_one_number_prove_equivocation() -> None:
    other = msgspec.structs.replace(FIRST, containers=3)
    found = fault(other, FIRST, LIMITS, QUOTE, SEEN)
    assert found is not None
    assert found.code == "statement.forked"


def test_a_lost_statement_is_no_fault() -> None:
    later = changed(seq=7, previous=bytes([9]) * 32)
    assert fault(later, FIRST, LIMITS, QUOTE, SEEN) is None


def test_the_allowances_of_the_spec_are_those_of_the_code() -> None:
    assert f"{st.CLOCK_SLACK // SECOND} s" in SPEC
    assert f"{st.CPU_SLACK_NS // SECOND} core-seconds" in SPEC
    assert f"{st.IN_FLIGHT >> 20} MiB" in SPEC
    assert f"{st.INTERNET_RATE / 1e6:g} MB/s" in SPEC
    assert f"{st.INTERNET_BURST >> 20} MiB" in SPEC
    assert f"{st.REPLICA_RATE / 1e6:g} MB/s" in SPEC
