"""What this machine is called in the market: as Linux calls its kind (``x86_64``, ``aarch64``), whatever runs here.

A tenant looks for providers of its own kind: its images are.
"""

from __future__ import annotations

import platform

_ELSEWHERE = {"arm64": "aarch64", "AMD64": "x86_64"}
"""macOS; Windows."""


def architecture() -> str:
    found = platform.machine()
    return _ELSEWHERE.get(found, found)
