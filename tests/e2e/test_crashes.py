"""SIGKILL at random moments of a lease: nothing but at most one tick is lost, and the lease goes on."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest

from devtools.localmarket import LocalMarket, NodeProcess
from devtools.shell import wait_until
from e2e.stories import Site, channel

SEED = 20261126


@pytest.mark.timeout(240)
def test_a_killed_daemon_loses_at_most_one_tick(market: LocalMarket) -> None:
    rand = Random(SEED)
    with Site(market, "story-kill") as site:
        provider = site.provider
        for victim in (provider, market.tenant):
            site.ticks(1)
            time.sleep(rand.random())  # the moment is the test's subject: somewhere in a tick
            _killed_and_back(site, victim)
        # a late payment pauses for a moment
        assert wait_until(lambda: site.lease()["state"] == "running", 15), site.lease()
    _both_count_the_same(market, provider, site.lease())


def _killed_and_back(site: Site, victim: NodeProcess) -> None:
    before = site.lease()
    victim.kill()
    victim.start()
    after = site.lease()
    assert after["lease"] == before["lease"]
    assert after["ticks"] >= before["ticks"] - 1
    assert after["due_msat"] >= before["due_msat"] - _one_tick(before)
    site.ticks(2)
    assert site.lease()["usage"]["cpu_ns"] >= before["usage"]["cpu_ns"]
    assert wait_until(site.answers, 15), "the published port did not come back"


def _both_count_the_same(market: LocalMarket, provider: NodeProcess, lease: dict[str, Any]) -> None:
    key = provider.key
    mine = channel(market.tenant, key)
    assert wait_until(lambda: channel(provider, market.tenant.key)["paid_sat"] == mine["paid_sat"], 10)
    total = sum(
        x["due_msat"] for x in market.tenant.ask("GET", "/v1/spend")["leases"] if x["provider"] == key
    )
    paid = sum(
        c["paid_sat"] for c in market.tenant.ask("GET", "/v1/channels")["channels"] if c["peer"] == key
    )
    assert paid == total // 1000, lease


def _one_tick(lease: dict[str, int]) -> int:
    return 2 * lease["due_msat"] // max(1, lease["ticks"]) + 1000
