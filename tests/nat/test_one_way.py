"""Packets pass one way and not the other: told apart from a death, one copy serves, and nothing is lost by it.

Whole daemons with real links on machines that are fakes: a tenant (shopC) with one copy and a standby at two providers
(shopD, shopE), and a gateway at the public machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from devtools.shell import wait_until
from nat import topology
from nat.conftest import Agent, Street

NO_FRONT = {"tenant": {"enabled": False, "checks": False}}
FREE = {"enabled": True, "price_preset": "free"}
NAME, ZONE, AT = "web", "oneway.example", f"{topology.PUBLIC}:8090"
PATIENT = 60


class Field:
    def __init__(self, public: Agent, agents: dict[str, Agent]) -> None:
        self.public, self.tenant = public, agents["shopC"]
        node = {"bind": f"{topology.PUBLIC}:4730", "market": True, "stamp_bits": 0}
        gate = {"enabled": True, "zone": ZONE, "public": [topology.PUBLIC], "face": False, "http": AT}
        key = public.do("daemon", config={"node": node, "provider": FREE, "gateway": gate, **NO_FRONT})["key"]
        home = {"seeds": [f"{key}@{topology.PUBLIC}:4730"], "stamp_bits": 0}
        self.sellers: dict[str, tuple[str, Agent]] = {}
        for name in ("shopD", "shopE"):
            key = agents[name].do("daemon", config={"node": home, "provider": FREE, **NO_FRONT})["key"]
            agents[name].do("offer_engine")
            self.sellers[key] = topology.SHOPS[name], agents[name]
        self.tenant.do("daemon", config={"node": home, **NO_FRONT})
        self.tenant.do("keep", name=NAME, labels={"dockage.public": "80", "dockage.standby": "1"})
        assert wait_until(lambda: self.stages() == ["serving", "standby"], PATIENT), self.copies()
        assert wait_until(lambda: bool(self.tenant.do("public_hosts", name=NAME)), PATIENT)
        [self.host] = self.tenant.do("public_hosts", name=NAME)
        assert wait_until(lambda: self.serves() == self.first["provider"] and self.is_well(), PATIENT)

    def copies(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.tenant.do("kept", name=NAME)
        return found

    @property
    def first(self) -> dict[str, Any]:
        return self.copies()[0]

    def stages(self) -> list[str]:
        return [x["stage"] for x in self.copies()]

    def places(self) -> list[tuple[str, str, int]]:
        return [(x["lease"], x["stage"], x["epoch"]) for x in self.copies()]

    def is_well(self) -> bool:
        return not any(x["code"] for x in self.copies())

    def serves(self) -> str:
        """Whose copy the public gets an answer of; "" for none."""
        page: str = self.tenant.do("visit", at=AT, host=self.host, tls=False)
        return page.rpartition("\r\n")[2] if page.startswith("HTTP/1.1 200") else ""

    def running(self) -> dict[str, int]:
        return {key: agent.do("running") for key, (_, agent) in self.sellers.items()}

    @contextmanager
    def deaf(self, *names: str) -> Iterator[None]:
        """These hear nothing of the provider that serves, which hears them."""
        address, _ = self.sellers[self.first["provider"]]
        for name in names:
            topology.deafen(name, address, True)
        try:
            yield
        finally:
            for name in names:
                topology.deafen(name, address, False)


@pytest.fixture(scope="module")
def field(street: Street) -> Iterator[Field]:
    agents = {name: Agent(name) for name in topology.SHOPS}
    try:
        for agent in agents.values():
            agent.ready()
        yield Field(street.public, agents)
    finally:
        for agent in agents.values():
            agent.let_go()
        for agent in agents.values():
            agent.end()


@pytest.mark.timeout(400)
def test_packets_that_pass_one_way_only_cost_no_lease_and_no_request(field: Field) -> None:
    """In one story, for each part leaves the field as the next one needs it: the tenant hears nothing of the provider,
    and its gateway does; the gateway hears nothing, and the tenant does; nobody hears it, and it hears all."""
    one_deaf_ear(field, "shopC", "replica.unseen")
    one_deaf_ear(field, "public", "replica.apart")
    lost = field.first
    with field.deaf("shopC", "public"):
        assert wait_until(lambda: field.serves() not in ("", lost["provider"]), PATIENT), field.copies()
        served = field.serves()
        assert field.running()[lost["provider"]] == 1, "it is not stopped, but nobody asks it"
        assert field.first["epoch"] > lost["epoch"]
    assert wait_until(lambda: field.running() == {lost["provider"]: 0, served: 1}, PATIENT), field.copies()
    assert wait_until(lambda: field.serves() == served, PATIENT)


def one_deaf_ear(field: Field, who: str, code: str) -> None:
    before, served = field.places(), field.first["provider"]
    with field.deaf(who):
        assert wait_until(lambda: field.first["code"] == code, PATIENT), field.copies()
        if who == "shopC":
            assert field.serves() == served, "the public does not notice"
        assert sum(field.running().values()) == 1
    assert wait_until(field.is_well, PATIENT), field.copies()
    assert wait_until(lambda: field.serves() == served, PATIENT)
    assert field.places() == before, "the same leases at the same epoch"
