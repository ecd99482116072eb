"""A provider dies with its daemon, and the port on our user's machine answers again: from a standby elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devtools.localmarket import LocalMarket
from devtools.regtest import free_port
from devtools.shell import wait_until
from e2e.stories import IMAGE, fetch, leases

NAME = "story-standby"
SITE = "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www"
LIMITS = ("--cpus=0.5", "--memory=64m")
PATIENT = 90


def kept(market: LocalMarket) -> dict[str, Any]:
    found = market.tenant.ask("GET", "/v1/deployments")["deployments"]
    return next((x for x in found if x["deployment"] == NAME), {"replicas": [], "story": []})


def states(market: LocalMarket) -> list[str]:
    return sorted(x["state"] for x in kept(market)["replicas"])


def primary(market: LocalMarket) -> dict[str, Any]:
    return next(x for x in kept(market)["replicas"] if x["primary"])


def told(market: LocalMarket) -> str:
    """Whole, for whom it fails before."""
    return json.dumps(kept(market))


@pytest.mark.timeout(500)
def test_a_deployment_with_a_standby_outlives_its_provider(market: LocalMarket) -> None:
    port = free_port()
    market.docker(
        *("run", "-d", "--name", NAME, "--label=dockage.standby=1", *LIMITS, "-p", f"{port}:80"),
        *(IMAGE, "sh", "-c", SITE),
    )
    try:
        assert wait_until(lambda: fetch(port) == 200, PATIENT)
        assert wait_until(lambda: states(market) == ["serving", "standby"], PATIENT), told(market)
        before = primary(market)
        victim = next(n for n in market.providers.values() if n.key == before["provider"])
        victim.kill()
        assert wait_until(lambda: fetch(port) == 200, PATIENT), told(market)
        after = primary(market)
        assert after["provider"] != before["provider"]
        assert after["epoch"] > before["epoch"]
        assert kept(market)["story"][-1]["code"] == "replica.dead"
        shown = market.docker("inspect", "-f", '{{index .Config.Labels "dockage.lease"}}', NAME).stdout
        assert shown.strip() == after["lease"]
        victim.start()
        assert wait_until(lambda: states(market) == ["serving", "standby"], PATIENT), told(market)
        assert primary(market)["lease"] == after["lease"], "what came back does not take over again"
    finally:
        market.docker("rm", "-f", NAME, check=False)
        for node in market.providers.values():
            if node.process_ended():
                node.start()
    assert wait_until(lambda: all(x["state"] == "ended" for x in leases(market)), PATIENT)
