"""Virtual time: everything here is in memory, so that an hour of a lease's life takes a moment."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog

from dockage.daemon import logs
from dockage.testing.loop import VirtualClockLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualClockLoop}


@pytest.fixture(autouse=True, scope="session")
def plain_logs() -> None:
    logs.configure()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
