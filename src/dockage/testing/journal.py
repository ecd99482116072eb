"""A journal in memory, and the contract that it and the real one both keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from dockage.ports import Journal, Row


class MemoryJournal:
    """``broken`` makes every write fail, as a full disk does; ``writes`` tells a test what was written together."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bytes], bytes] = {}
        self.writes: list[tuple[Row, ...]] = []
        self.broken = False

    def write(self, rows: Sequence[Row]) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        self.writes.append(tuple(rows))
        self._rows.update({(row.kind, row.key): row.value for row in rows})

    def load(self) -> Iterable[Row]:
        return [Row(kind, key, value) for (kind, key), value in self._rows.items()]

    def close(self) -> None:
        pass


class Reopened(Protocol):
    def __call__(self) -> Journal:
        """The same durable state, as the next process finds it."""


class JournalContract:
    """Subclass with a fixture ``reopen``: each call is the next process."""

    def test_the_newest_row_of_each_key_is_loaded_in_the_order_of_first_writing(
        self, reopen: Reopened
    ) -> None:
        journal = reopen()
        journal.write([Row("a", b"1", b"old"), Row("b", b"1", b"x")])
        journal.write([Row("c", b"2", b"y"), Row("a", b"1", b"new")])
        assert list(journal.load()) == [
            Row("a", b"1", b"new"),
            Row("b", b"1", b"x"),
            Row("c", b"2", b"y"),
        ]

    def test_what_was_written_is_there_in_the_next_process(self, reopen: Reopened) -> None:
        journal = reopen()
        journal.write([Row("a", b"\0\xff", bytes(range(256)))])
        journal.close()
        assert list(reopen().load()) == [Row("a", b"\0\xff", bytes(range(256)))]

    def test_one_kind_and_key_twice_in_a_write_keeps_the_later(self, reopen: Reopened) -> None:
        journal = reopen()
        journal.write([Row("a", b"1", b"first"), Row("a", b"1", b"second")])
        assert list(journal.load()) == [Row("a", b"1", b"second")]

    def test_nothing_written_is_nothing_loaded(self, reopen: Reopened) -> None:
        journal = reopen()
        journal.write([])
        assert list(journal.load()) == []
