"""A tenant that looks into its paid leases, over daemons, link and channels of its own: who lies is found, paid no more
and avoided; who does not is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from devtools.localmarket import LocalMarket, NodeProcess
from devtools.shell import wait_until
from e2e.conftest import LAB
from e2e.stories import IMAGE

LIARS = {"eve": "double", "mal": "half"}
THERE = ("--label", f"dockage.region={LAB}")
CODES = {"eve": "meter.overstated", "mal": "meter.short"}
LOOKS = 8
"""Within so many looks; each comes at most 7 s after the one before, so within 60 ticks and the time that looks take.
That time is the machine's: a tick in which it was too busy to look is no evidence."""
LIMIT = 240
"""Seconds, for the slowest machine; on an idle one it takes some thirty."""
WORK = "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.1; done"
"""A fraction of a core: twice of it is possible, and nothing but a look tells."""


@pytest.fixture
def wary(market: LocalMarket) -> Iterator[NodeProcess]:
    node = market.add_tenant("wary")
    market.fund_tenant(1_000_000, node)
    for name, lie in LIARS.items():
        market.add_cheat(name, lie, 5, LAB)  # half of cal's price
    yield node
    for lease in leases(node):
        if lease["state"] != "ended":
            node.ask("POST", f"/v1/leases/{lease['lease']}/end")
    assert wait_until(lambda: all(x["state"] == "ended" for x in leases(node)), 60)
    for name in LIARS:
        market.remove_provider(name)
    node.stop()


def leases(node: NodeProcess) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = node.ask("GET", "/v1/spend")["leases"]
    return shown


def offers(node: NodeProcess) -> dict[str, dict[str, Any]]:
    return {
        x["provider"]: x
        for x in node.ask("POST", "/v1/market", {"labels": {"dockage.region": LAB}})["offers"]
    }


def codes(offer: dict[str, Any]) -> set[str]:
    return {breach["code"] for breach in offer["evidence"]["breaches"]}


@pytest.mark.timeout(600)
def test_who_states_twice_the_cpu_or_gives_half_a_core_is_found_and_avoided_and_who_is_honest_is_not(
    market: LocalMarket, wary: NodeProcess
) -> None:
    key = {name: market.providers[name].key for name in ("cal", *LIARS)}
    assert wait_until(lambda: set(key.values()) <= set(offers(wary)), 60, 0.5)
    shown = offers(wary)
    assert all(shown[key[name]]["msat_hour_max"] < shown[key["cal"]]["msat_hour_max"] for name in LIARS)
    for name, cores, work in (("eve", "1", WORK), ("mal", "1", "sleep 600"), ("cal", "0.1", WORK)):
        at = ("--cpus", cores, *THERE, "--label", f"dockage.provider={key[name]}")
        rent(market, wary, *at, "sh", "-c", work)
    looks: dict[str, int] = {}

    def are_found() -> bool:
        seen = offers(wary)
        for name, code in CODES.items():
            if code in codes(seen[key[name]]):
                looks.setdefault(
                    name, max(x["checks"]["looks"] for x in leases(wary) if x["provider"] == key[name])
                )
        return len(looks) == len(CODES)

    assert wait_until(are_found, LIMIT, 0.5), offers(wary)
    assert max(looks.values()) <= LOOKS, looks
    paid = {x["peer"]: x["paid_sat"] for x in wary.ask("GET", "/v1/channels")["channels"]}
    assert min(paid[each] for each in key.values()) > 0
    honest = codes(offers(wary)[key["cal"]])
    assert "meter.overstated" not in honest
    # what a cheat stated above the truth is not paid, and nobody is sent to either any more, however cheap they are
    assert "was found cheating by this node" in offers(wary)[key["eve"]]["obstacles"]
    assert offers(wary)[key["mal"]]["risk_permille"] >= 2000
    before = {x["lease"] for x in leases(wary)}
    rent(market, wary, "--cpus", "0.1", *THERE, "sleep", "600")
    (last,) = [x for x in leases(wary) if x["lease"] not in before]
    # where even a tenth of a core of cal's was short, this machine is too busy to tell it from mal
    avoided = {key["eve"]} if "meter.short" in honest else {key["eve"], key["mal"]}
    assert last["provider"] not in avoided


def rent(market: LocalMarket, node: NodeProcess, *arguments: str) -> None:
    split = next(n for n, word in enumerate(arguments) if word in ("sh", "sleep"))
    options, command = arguments[:split], arguments[split:]
    market.docker("run", "-d", "--memory", "64m", *options, IMAGE, *command, tenant=node)
