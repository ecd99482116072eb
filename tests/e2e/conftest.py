"""One market for all stories of this folder: starting one costs ten seconds, and stories share it as users do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from devtools.localmarket import LocalMarket
from devtools.shell import Failed

TENANT_SAT = 5_000_000
PRICES = {"ada": 500, "bob": 650, "cal": 10}
"""In percent of the demo's: a few requests are worth the fee of a close. At cal's, whole programs can run."""
MARKET_NODES = 2
"""What a crowd of them does is tests/market's; each costs the stories six seconds of CPU."""
LAB = "lab"
"""Where cal is: nobody looks there unasked."""


@pytest.fixture(scope="package")
def market(
    request: pytest.FixtureRequest, tenant_engine: Path, provider_engine: Path, docker_config: Path
) -> Iterator[LocalMarket]:
    """Two providers, one dearer; a tenant with coins; a block every half second."""
    world = LocalMarket(
        *(str(tenant_engine), str(provider_engine), PRICES, MARKET_NODES),
        docker_config=docker_config,
        regions={"cal": LAB},
    )
    try:
        world.start()
        world.fund_tenant(TENANT_SAT)
        world.mine_every(0.5)
        world.wait_for_offers(2)
        yield world
    finally:
        if request.session.testsfailed:
            with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
                tell_logs(world)
        world.close()


def tell_logs(world: LocalMarket) -> None:
    """A story that failed is understood from what its nodes said, and where one is that says nothing."""
    for node in (*world.markets, *world.providers.values(), world.tenant):
        with suppress(OSError, Failed):
            node.ask("GET", "/v1/status", seconds=10)
        ended = f", ended with {node.process.returncode}" if node.process and node.process_ended() else ""
        sys.stdout.write(f"--- {node.home.name}{ended}\n{node.log.read_text(errors='replace')[-4000:]}\n")
