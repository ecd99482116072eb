"""One market for all stories of this folder: starting one costs ten seconds, and stories share it as users do."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from devtools.localmarket import LocalMarket, NodeProcess
from devtools.shell import Failed

TENANT_SAT = 5_000_000
PRICES = {"ada": 500, "bob": 650, "cal": 10}
"""In percent of the demo's: a few requests are worth the fee of a close. At cal's, whole programs can run."""
MARKET_NODES = 2
"""What a crowd of them does is tests/market's; each costs the stories six seconds of CPU."""
LOG_TAIL = 8000
LAB = "lab"
"""Where cal is: nobody looks there unasked."""


@pytest.fixture(scope="package")
def market(tenant_engine: Path, provider_engine: Path, docker_config: Path) -> Iterator[LocalMarket]:
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
        world.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A story that failed is understood from what its nodes said until then, and where one is that says nothing."""
    report = yield
    if report.failed:
        used = getattr(item, "funcargs", {}).values()
        report.sections += [(f"node {x.home.name}", told(x)) for each in used for x in nodes(each)]
    return report


def nodes(fixture: object) -> Sequence[NodeProcess]:
    """Of a market, or of a story's own house."""
    if isinstance(fixture, LocalMarket):
        return [*fixture.markets, *fixture.providers.values(), fixture.tenant]
    own = getattr(fixture, "nodes", ())
    return own if isinstance(own, tuple) else ()


def told(node: NodeProcess) -> str:
    with suppress(OSError, Failed):
        node.ask("GET", "/v1/status", seconds=10)
    ended = f"ended with {node.process.returncode}\n" if node.process and node.process_ended() else ""
    return ended + node.log.read_text(errors="replace")[-LOG_TAIL:]
