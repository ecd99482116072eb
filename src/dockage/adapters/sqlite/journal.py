"""The durable state of every machine: one row each, overwritten in place; only history is ever thinned out.

Counterpart: ``daemon/driver.py``, which writes before it performs any effect. State and not events,
so that a year-long lease replays in no time (docs/decisions/0001-journal-of-states.md).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from dockage.domain.errors import Unavailable
from dockage.ports.machine import Row

SCHEMA = 1


class SqliteJournal:
    """May be called from any thread; calls are serialised."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode = wal")
        # FULL, not NORMAL: a payment we acknowledged must not be forgotten in a power cut.
        self._db.execute("pragma synchronous = full")
        self._migrate(path)

    def _migrate(self, path: Path) -> None:
        (version,) = self._db.execute("pragma user_version").fetchone()
        if version > SCHEMA:
            self._db.close()
            raise Unavailable("journal.newer", f"{path} was written by a newer dockage; update this one")
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


def _clauses(only: Collection[str], without: Collection[str]) -> list[tuple[str, Collection[str]]]:
    return [(word, kinds) for word, kinds in (("in", only), ("not in", without)) if kinds]
