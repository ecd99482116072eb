"""The durable state of every machine: one row each, overwritten in place; only history is ever thinned out.

Counterpart: ``daemon/driver.py``, which writes before it performs any effect. State and not events,
so that a year-long lease replays in no time (docs/decisions/0001-journal-of-states.md).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dockage import __version__
from dockage.domain.errors import Unavailable, UsageError
from dockage.ports.machine import Row

SCHEMA = 1
"""Of what the rows say, too: raised when an older program would misread what a newer one has written."""


class SqliteJournal:
    """May be called from any thread; calls are serialised."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        with _told(path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            with _told(path):
                self._open(path)
        except BaseException:
            self._db.close()
            raise

    def _open(self, path: Path) -> None:
        (version,) = self._db.execute("pragma user_version").fetchone()
        if version > SCHEMA:
            raise UsageError(
                "journal.newer",
                f"{path} was written by a newer dockage, whose leases and channels {__version__} may not understand: "
                "upgrade, or go back to the copy of the home from before the upgrade if no channel was used since",
            )
        self._db.execute("pragma journal_mode = wal")
        # FULL, not NORMAL: a payment we acknowledged must not be forgotten in a power cut.
        self._db.execute("pragma synchronous = full")
        self._db.execute(
            "create table if not exists state ("
            " id integer primary key, kind text not null, key blob not null, value blob not null,"
            " unique (kind, key)) strict"
        )
        self._db.execute(f"pragma user_version = {SCHEMA}")

    def write(self, rows: Sequence[Row]) -> None:
        self._change(
            "insert into state (kind, key, value) values (?, ?, ?)"
            " on conflict (kind, key) do update set value = excluded.value",
            rows,
        )

    def forget(self, rows: Sequence[tuple[str, bytes]]) -> None:
        self._change("delete from state where kind = ? and key = ?", rows)

    def _change(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._lock:
            self._db.execute("begin immediate")
            try:
                self._db.executemany(statement, rows)
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                raise

    def load(self, only: Collection[str] = (), without: Collection[str] = ()) -> Iterable[Row]:
        wanted = [f"kind {word} ({', '.join('?' * len(kinds))})" for word, kinds in _clauses(only, without)]
        where = f" where {' and '.join(wanted)}" if wanted else ""
        with self._lock:
            rows = self._db.execute(
                f"select kind, key, value from state{where} order by id", (*only, *without)
            ).fetchall()
        return [Row(kind, key, value) for kind, key, value in rows]

    def close(self) -> None:
        with self._lock:
            self._db.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What is the matter with the file, in our words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable("journal.closed", f"{path} cannot be opened and written: {error}") from None
    except sqlite3.DatabaseError as error:
        raise UsageError(
            "journal.damaged",
            f"{path} is damaged ({error}): put it back from a backup, and start no other node",
        ) from None


def _clauses(only: Collection[str], without: Collection[str]) -> list[tuple[str, Collection[str]]]:
    return [(word, kinds) for word, kinds in (("in", only), ("not in", without)) if kinds]
