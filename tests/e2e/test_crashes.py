"""SIGKILL at random moments of a lease: nothing but at most one tick is lost, and the lease goes on."""

from __future__ import annotations

import time
from random import Random

import pytest

from devtools.localmarket import LocalMarket
from devtools.shell import wait_until
from e2e.stories import Site, channel

SEED = 20261126


@pytest.mark.parametrize("side", ["provider", "tenant"])
def test_a_killed_daemon_loses_at_most_one_tick(market: LocalMarket, side: str) -> None:
    rand = Random(f"{SEED} {side}")
    with Site(market, f"story-kill-{side}") as site:
        provider = site.provider
        victim = provider if side == "provider" else market.tenant
        for _ in range(3):
            site.ticks(1)
            time.sleep(rand.random())  # the moment is the test's subject: somewhere in a tick
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
        assert wait_until(
            lambda: site.lease()["state"] == "running", 15
        )  # a late payment pauses for a moment
    lease = site.lease()
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
