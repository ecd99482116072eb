"""The journal contract on memory and on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.ports import Row
from dockage.testing.journal import JournalContract, MemoryJournal, Reopened


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def reopen(self) -> Reopened:
        journal = MemoryJournal()
        return lambda: journal


class TestSqliteJournal(JournalContract):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Iterator[Reopened]:
        opened: list[SqliteJournal] = []

        def open_() -> SqliteJournal:
            opened.append(SqliteJournal(tmp_path / "state.db"))
            return opened[-1]

        yield open_
        for journal in opened:
            journal.close()


def test_a_write_that_fails_writes_none_of_its_rows(tmp_path: Path) -> None:
    with closing(SqliteJournal(tmp_path / "state.db")) as journal:
        with suppress(Exception):
            journal.write([Row("a", b"1", b"good"), Row("a", b"2", None)])  # type: ignore[arg-type]
        assert list(journal.load()) == []
        journal.write([Row("a", b"3", b"after")])
        assert list(journal.load()) == [Row("a", b"3", b"after")]
