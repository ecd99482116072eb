"""The main job once more, with a provider on a current Docker engine beside the others on Debian 12's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.localmarket import LocalMarket, NodeProcess
from devtools.shell import wait_until
from e2e.stories import IMAGE, leases


@pytest.fixture
def modern(market: LocalMarket, current_engine: Path) -> Iterator[NodeProcess]:
    node = market.add_provider("fay", current_engine, 600)
    try:
        market.wait_for_offers(3)  # with ada's and bob's; cal sells in a region of its own
        yield node
    finally:
        market.remove_provider("fay")


def test_a_container_on_a_current_engine_is_served_metered_and_paid(
    market: LocalMarket, modern: NodeProcess
) -> None:
    labels = (
        "--label",
        f"dockage.provider={modern.key}",
        "--label",
        "com.docker.compose.project=story-modern",
    )
    work = "echo hello; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 60"
    market.docker("run", "-d", "--name", "modern", "--restart", "always", *labels, IMAGE, "sh", "-c", work)
    assert market.docker("logs", "modern").stdout == "hello\n"
    assert market.docker("exec", "modern", "echo", "in").stdout == "in\n"
    market.docker("restart", "-t", "0", "modern")

    def mine() -> dict[str, object]:
        return next(x for x in reversed(leases(market)) if x["deployment"] == "story-modern")

    assert mine()["provider"] == modern.key
    assert wait_until(lambda: mine()["usage"]["cpu_ns"] > 0 and mine()["ticks"] > 3, 30), mine()  # type: ignore[index, operator]
    assert wait_until(lambda: mine()["due_msat"] > 0, 20)  # type: ignore[operator]
    market.docker("rm", "-f", "modern")
    assert wait_until(lambda: mine()["state"] == "ended", 30), mine()
