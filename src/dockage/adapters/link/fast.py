"""Cures a fault of the iroh 1.2 binding: outgoing bytes are copied one by one in Python (5 MB/s).

Known upstream as n0-computer/iroh-ffi#229 and mended in uniffi 0.32. The guard looks at the code itself,
not at a version: a binding that no longer loops over bytes, or has other insides, is left alone.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from iroh import iroh_ffi


def copies_bytes_one_by_one(builder: Any) -> bool:
    """True for the faulty generated code: ``write`` and ``_pack_into`` enumerate over their input."""
    methods = [getattr(builder, name, None) for name in ("write", "_pack_into", "_reserve")]
    if any(method is None for method in methods) or not hasattr(iroh_ffi, "_UniffiRustBuffer"):
        return False
    return all("enumerate" in method.__code__.co_names for method in methods[:2] if method is not None)


def _write(self: Any, value: bytes) -> None:
    size = len(value)
    if self.rbuf.len + size > self.rbuf.capacity:
        self.rbuf = iroh_ffi._UniffiRustBuffer.reserve(self.rbuf, size)
    if size:
        end = ctypes.addressof(self.rbuf.data.contents) + self.rbuf.len
        ctypes.memmove(end, value if isinstance(value, bytes) else bytes(value), size)
    self.rbuf.len += size


def _pack_into(self: Any, size: int, format: str, value: int | float) -> None:
    _write(self, struct.pack(format, value))


def apply() -> bool:
    """Returns whether the cure was needed. Safe to call again."""
    builder = getattr(iroh_ffi, "_UniffiRustBufferBuilder", None)
    if builder is None or not copies_bytes_one_by_one(builder):
        return False
    builder.write, builder._pack_into = _write, _pack_into
    return True
