"""The journal contract, on the fake and on SQLite."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.domain.errors import Unavailable, UsageError
from dockage.ports.machine import Journal
from dockage.testing.journal import JournalContract, MemoryJournal


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def journal(self) -> Journal:
        return MemoryJournal()


class TestSqliteJournal(JournalContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "journal.db"

    @pytest.fixture
    def journal(self, path: Path) -> Iterator[Journal]:
        self.opened: list[SqliteJournal] = [SqliteJournal(path)]
        self.path = path
        yield self.opened[0]
        for each in self.opened:
            each.close()

    def reopen(self, journal: Journal) -> Journal:
        journal.close()
        self.opened.append(SqliteJournal(self.path))
        return self.opened[-1]

    def test_a_journal_of_a_newer_version_is_left_alone(self, journal: Journal, path: Path) -> None:
        with sqlite3.connect(path) as db:
            db.execute("pragma user_version = 99")
        db.close()
        with pytest.raises(UsageError, match="upgrade") as caught:
            SqliteJournal(path)
        assert caught.value.code == "journal.newer"

    def test_a_file_that_is_none_of_ours_is_told_and_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "state.db"
        path.write_bytes(b"something else" * 1000)
        with pytest.raises(UsageError, match=r"damaged.*backup"):
            SqliteJournal(path)
        assert path.read_bytes() == b"something else" * 1000
        with pytest.raises(Unavailable, match="cannot be opened"):
            SqliteJournal(tmp_path / "nowhere" / "state.db")

    def test_it_survives_kill_minus_nine(self, tmp_path: Path) -> None:
        """The child says how far it got, and is killed in the middle of writing."""
        path = tmp_path / "killed.db"
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        written = [int(child.stdout.readline()) for _ in range(20)][-1]
        os.kill(child.pid, signal.SIGKILL)
        child.stdout.close()
        child.wait(10)
        journal = SqliteJournal(path)
        rows = {row.key: int(row.value) for row in journal.load()}
        journal.close()
        assert rows[b"a"] >= written
        assert rows[b"a"] == rows[b"b"]


WRITER = """
import sys
from pathlib import Path
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.ports.machine import Row
journal = SqliteJournal(Path(sys.argv[1]))
for n in range(1_000_000):
    value = b"%d" % n
    journal.write([Row("lease", b"a", value), Row("lease", b"b", value)])
    print(n, flush=True)
"""
