"""Cures a fault of the iroh 1.2 binding: outgoing bytes are copied one by one in Python (5 MB/s).

Known upstream as n0-computer/iroh-ffi#229 and mended in uniffi 0.32. The guard looks at the code itself,
not at a version: a binding that no longer loops over bytes, or has other insides, is left alone. Here bytes cross in
one piece both ways, without the builders and context managers that cost more than a small request.
"""

from __future__ import annotations

import ctypes
from typing import Any

from iroh import iroh_ffi

HEAD = 4
"""Bytes of the length that stands before the bytes, big-endian."""


def copies_bytes_one_by_one(binding: Any) -> bool:
    """True for the faulty generated code: its builder's ``write`` enumerates over what it is given."""
    builder = getattr(binding, "_UniffiRustBufferBuilder", None)
    methods = [getattr(builder, name, None) for name in ("write", "_pack_into", "_reserve")]
    if any(method is None for method in methods) or not hasattr(binding, "_UniffiFfiConverterBytes"):
        return False
    return all("enumerate" in method.__code__.co_names for method in methods[:2] if method is not None)


def lower(value: Any) -> Any:
    size, data = len(value), value if isinstance(value, bytes) else bytes(value)
    buffer = iroh_ffi._UniffiRustBuffer.alloc(HEAD + size)
    start = ctypes.addressof(buffer.data.contents)
    ctypes.memmove(start, size.to_bytes(HEAD, "big"), HEAD)
    ctypes.memmove(start + HEAD, data, size)
    buffer.len = HEAD + size
    return buffer


def lift(buffer: Any) -> bytes:
    try:
        data: bytes = buffer.data[HEAD : buffer.len]
        if int.from_bytes(buffer.data[:HEAD], "big") != len(data):
            raise iroh_ffi.InternalError("a buffer of another size than it says")
        return data
    finally:
        buffer.free()


def apply() -> bool:
    """Returns whether the cure was needed. Safe to call again."""
    if not copies_bytes_one_by_one(iroh_ffi):
        return False
    converter = iroh_ffi._UniffiFfiConverterBytes
    if converter.__dict__.get("lower") is not None:
        return False
    converter.lower, converter.lift = staticmethod(lower), staticmethod(lift)
    return True
