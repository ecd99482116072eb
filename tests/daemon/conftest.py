"""Virtual time: everything here is in memory, so that an hour of a lease's life takes a moment."""

from __future__ import annotations

from typing import Any

import pytest

from dockage.testing.loop import VirtualClockLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualClockLoop}
