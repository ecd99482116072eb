"""An in-memory journal, and the tests that every journal passes.

Counterpart: ``adapters/sqlite/journal.py``. Subclass ``JournalContract`` with a ``journal`` fixture, and ``reopen``
where the journal outlives its object.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import pytest

from dockage.ports.machine import Journal, Row


class MemoryJournal:
    """``broken`` makes every write fail, as a full disk does; ``writes`` tells a test what was written together."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bytes], bytes] = {}
        self.writes: list[tuple[Row, ...]] = []
        self.broken = False

    def write(self, rows: Sequence[Row]) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        new = {(kind, key): value for kind, key, value in rows}
        self._rows.update(new)
        self.writes.append(tuple(rows))

    def load(self, only: Collection[str] = (), without: Collection[str] = ()) -> Iterable[Row]:
        return [
            Row(kind, key, value)
            for (kind, key), value in self._rows.items()
            if (not only or kind in only) and kind not in without
        ]

    def forget(self, rows: Sequence[tuple[str, bytes]]) -> None:
        for row in rows:
            self._rows.pop(row, None)

    def close(self) -> None:
        """Nothing to let go of."""


LEASE, CHANNEL = "lease", "channel"


class JournalContract:
    def reopen(self, journal: Journal) -> Journal:
        """The journal as a new process would find it."""
        return journal

    def test_a_new_journal_is_empty(self, journal: Journal) -> None:
        assert list(journal.load()) == []

    def test_what_was_written_is_loaded_in_the_order_of_first_writing(self, journal: Journal) -> None:
        rows = [Row(LEASE, b"b", b"1"), Row(LEASE, b"a", b"2"), Row(CHANNEL, b"b", b"3")]
        journal.write(rows)
        journal.write([Row(LEASE, b"b", b"4")])
        assert list(journal.load()) == [Row(LEASE, b"b", b"4"), *rows[1:]]

    def test_the_newest_value_of_a_key_counts_also_within_one_write(self, journal: Journal) -> None:
        journal.write([Row(LEASE, b"a", b"old"), Row(LEASE, b"a", b"new")])
        assert list(journal.load()) == [Row(LEASE, b"a", b"new")]

    def test_kinds_and_keys_are_not_mixed_up(self, journal: Journal) -> None:
        journal.write([Row(LEASE, b"a", b"1"), Row(CHANNEL, b"a", b"2"), Row(LEASE, b"A", b"3")])
        assert len(list(journal.load())) == 3

    def test_any_bytes_come_back(self, journal: Journal) -> None:
        every = bytes(range(256))
        journal.write([Row(LEASE, every, b""), Row(LEASE, b"", every * 300)])
        assert list(journal.load()) == [Row(LEASE, every, b""), Row(LEASE, b"", every * 300)]

    def test_writing_nothing_changes_nothing(self, journal: Journal) -> None:
        journal.write([])
        assert list(journal.load()) == []

    def test_all_rows_or_none(self, journal: Journal) -> None:
        """A row that can't be written takes its neighbours with it."""
        journal.write([Row(LEASE, b"a", b"1")])
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the journal's own business
            journal.write(_HalfRows())
        assert list(journal.load()) == [Row(LEASE, b"a", b"1")]

    def test_it_can_be_written_while_it_is_loaded(self, journal: Journal) -> None:
        journal.write([Row(LEASE, bytes([n]), b"1") for n in range(10)])
        for row in journal.load():
            journal.write([Row(row.kind, row.key, b"2")])
        assert {row.value for row in journal.load()} == {b"2"}

    def test_only_the_kinds_asked_for_are_loaded(self, journal: Journal) -> None:
        rows = [Row(LEASE, b"a", b"1"), Row(CHANNEL, b"a", b"2"), Row("other", b"a", b"3")]
        journal.write(rows)
        assert list(journal.load(only=(LEASE, "other"))) == [rows[0], rows[2]]
        assert list(journal.load(without=(LEASE, "other"))) == [rows[1]]
        assert list(journal.load(only=(LEASE, CHANNEL), without=(LEASE,))) == [rows[1]]

    def test_what_is_forgotten_is_gone_and_nothing_else(self, journal: Journal) -> None:
        rows = [Row(LEASE, b"a", b"1"), Row(LEASE, b"b", b"2"), Row(CHANNEL, b"a", b"3")]
        journal.write(rows)
        journal.forget([(LEASE, b"a"), (LEASE, b"never there")])
        journal.forget([])
        again = self.reopen(journal)
        assert list(again.load()) == rows[1:]
        again.write([rows[0]])
        assert len(list(again.load())) == 3

    def test_a_new_process_finds_it_all(self, journal: Journal) -> None:
        journal.write([Row(LEASE, b"a", b"1"), Row(LEASE, b"b", b"2")])
        journal.write([Row(LEASE, b"a", b"3")])
        again = self.reopen(journal)
        assert list(again.load()) == [Row(LEASE, b"a", b"3"), Row(LEASE, b"b", b"2")]
        again.write([Row(LEASE, b"c", b"4")])
        assert len(list(again.load())) == 3


class _HalfRows(Sequence[Row]):
    """The power goes in the middle."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: object) -> Row:  # type: ignore[override]
        raise OSError("the power went")

    def __iter__(self) -> Iterator[Row]:
        yield Row(LEASE, b"a", b"changed")
        yield Row(LEASE, b"b", b"new")
        raise OSError("the power went")
