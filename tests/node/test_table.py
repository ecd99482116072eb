"""A table against plain dicts: the same records in the same order, whatever was put, moved and dropped before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.identity import NodeKey
from dockage.node import table as module
from dockage.node.table import Table


@pytest.fixture(scope="module", autouse=True)
def short_trails() -> Iterator[None]:
    usual, module.TRAIL_MIN = module.TRAIL_MIN, 3
    yield
    module.TRAIL_MIN = usual


class Note(NamedTuple):
    id: int
    peer: NodeKey
    text: str


PEERS = [NodeKey(bytes([n])) for n in range(3)]
NOTES = st.builds(Note, st.integers(0, 8), st.sampled_from(PEERS), st.text(max_size=1))
MOVES = st.lists(NOTES | st.frozensets(st.integers(0, 8), max_size=3), max_size=20)


def after(moves: list[Any]) -> tuple[list[Table[int, Note]], list[dict[int, Note]]]:
    tables, models = [Table[int, Note]()], [dict[int, Note]()]
    for move in moves:
        if isinstance(move, Note):
            tables.append(tables[-1].put(move))
            models.append({**models[-1], move.id: move})
        else:
            tables.append(tables[-1].drop(move))
            models.append({key: note for key, note in models[-1].items() if key not in move})
    return tables, models


@given(MOVES)
def test_every_version_stays_as_it_was(moves: list[Any]) -> None:
    for table, model in zip(*after(moves), strict=True):
        assert list(table.items()) == list(model.items())
        assert list(table.values()) == list(model.values())
        for peer in PEERS:
            assert sorted(table.of(peer)) == sorted(x for x in model.values() if x.peer == peer)


@given(MOVES, st.data())
def test_what_differs_between_any_two_versions_is_found_by_identity(
    moves: list[Any], data: st.DataObject
) -> None:
    tables, models = after(moves)
    one, other = (data.draw(st.integers(0, len(moves))) for _ in range(2))
    wanted = [x for key, x in models[other].items() if models[one].get(key) is not x]
    assert sorted(tables[other].since(tables[one])) == sorted(wanted)


@given(st.lists(NOTES, max_size=20), NOTES, NOTES)
def test_two_branches_of_one_past_do_not_see_each_other(past: list[Note], one: Note, other: Note) -> None:
    root = after(past)[0][-1]
    left, right = root.put(one), root.put(other)
    assert left[one.id] is one
    assert right[other.id] is other
    assert left.since(root) == ([one] if root.get(one.id) is not one else [])
    assert sorted(right.since(left)) == sorted(x for key, x in right.items() if left.get(key) is not x)


def test_the_records_of_a_peer_come_the_oldest_first() -> None:
    table = Table([Note(2, PEERS[0], "a"), Note(1, PEERS[0], "b")]).put(Note(0, PEERS[0], "c"))
    assert [x.id for x in table.put(Note(2, PEERS[0], "d")).of(PEERS[0])] == [2, 1, 0]
    assert table.of(PEERS[1]) == []
