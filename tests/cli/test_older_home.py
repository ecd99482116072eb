"""A home of an older dockage is read by this one: rows that the journal's first format really held.

If this fails, a released node could not be upgraded. Give the new field a default; where that cannot be, raise
``adapters/sqlite/journal.SCHEMA``, move old rows over there, and keep this file as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dockage.node import records

from . import parts

FIRST = Path(__file__).with_name("home-1.json")
"""[kind, key, value] of each row, in hex; written by 0.1.0 for what ``parts.py`` describes."""
DECODE: dict[str, Any] = {
    records.SOLD: records.decode_sold_lease,
    records.RENTED: records.decode_rented_lease,
    records.EARNING: records.decode_channel,
    records.PAYING: records.decode_channel,
    records.SPENT: records.decode_total,
    records.EARNED: records.decode_total,
}


def today() -> list[tuple[str, bytes, bytes]]:
    minds = [records.changes(None, mind) for mind in (parts.tenant_state(), parts.provider_state())]
    return [*(tuple(row) for rows in minds for row in rows if row.kind in DECODE), *map(tuple, parts.past())]


def test_every_row_of_the_first_format_means_what_it_meant() -> None:
    then = [
        (kind, bytes.fromhex(key), bytes.fromhex(value)) for kind, key, value in json.loads(FIRST.read_text())
    ]
    assert {kind for kind, _, _ in then} == set(DECODE)
    for old, new in zip(then, today(), strict=True):
        assert old[:2] == new[:2]
        assert DECODE[old[0]](old[2]) == DECODE[new[0]](new[2])
