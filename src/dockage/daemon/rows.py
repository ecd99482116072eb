"""Rows of the journal as values, and back. What cannot be read stops the node before it has begun.

A row without a value is one that is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from dockage.node import records
from dockage.ports.machine import Row

T = TypeVar("T")


def kept(rows: Iterable[Row], kind: str, type_: type[T]) -> list[T]:
    """All of *kind*. Raises UsageError("journal.unreadable")."""
    decoder = msgspec.msgpack.Decoder(type_)
    return [records.decode(decoder, row.value) for row in rows if row.kind == kind and row.value]


def changed(before: Any, after: Any) -> list[Row]:
    """The rows in which two states of a provider's or a tenant's mind differ."""
    return [Row(*record) for record in records.changes(before, after)]
