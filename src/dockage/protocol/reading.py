"""Bytes of somebody else as a value of their type, or a breach with its code: no other error comes of any bytes."""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec

from dockage.domain.errors import PeerError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Decoder(Protocol[T_co]):
    """Of msgpack or JSON."""

    def decode(self, data: bytes, /) -> T_co: ...


def decoded(code: str, told: str, decoder: Decoder[T], data: bytes) -> T:
    """Raises PeerError(*code*), which says *told* and what does not fit."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(code, f"{told}: {error}") from None
