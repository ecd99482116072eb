"""An app on the internet that stays up: two gateways, two providers, all real, and a machine of each kind that dies."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import dns.exception
import dns.message
import dns.query
import pytest

from devtools.localmarket import LocalMarket, NodeProcess
from devtools.regtest import free_port
from devtools.shell import wait_until
from e2e.stories import IMAGE, leases

NAME, ZONE = "story-public", "gw.example"
ADDRESSES = ("127.0.7.1", "127.0.7.2")
"""Of the gateways: each looks at port 80 whether the other one is there, before it sends anybody to it."""
PATIENT = 60
LONG = 20_000
COMPOSE = f"""
services:
  web:
    image: {IMAGE}
    pull_policy: never
    command: ["sh", "-c", "mkdir -p /www && echo hello > /www/index.html && head -c {LONG} /dev/zero > /www/long &&
      exec httpd -f -p 80 -h /www"]
    init: true
    stop_grace_period: 1s
    labels: {{dockage.public: "80", dockage.replicas: "2", dockage.gateways: "2"}}
    deploy: {{resources: {{limits: {{cpus: "0.5", memory: 64M}}}}}}
"""


class Gateway:
    def __init__(self, market: LocalMarket, name: str, address: str) -> None:
        """*name*: nobody else's in this market, ever."""
        self.address, self.dns = address, free_port(socket.SOCK_DGRAM)
        here = f'http = "{address}:80"\ndns = "{address}:{self.dns}"\nbind = "{address}"\n'
        self.node: NodeProcess = market.add_gateway(
            name, f'zone = "{ZONE}"\npublic = ["{address}"]\nface = false\n{here}'
        )
        self.key = self.node.key

    def resolve(self, name: str) -> set[str]:
        try:
            query = dns.message.make_query(name, "A")
            answer = dns.query.udp(query, self.address, timeout=2, port=self.dns)
        except (dns.exception.DNSException, OSError):
            return set()
        return {each.to_text() for record in answer.answer for each in record}


class App(NamedTuple):
    market: LocalMarket
    gateways: list[Gateway]
    host: str

    def get(self, address: str, host: str = "", path: str = "/") -> tuple[int, int]:
        """Status, and how long the body is."""
        connection = http.client.HTTPConnection(address, 80, timeout=40)
        try:
            connection.request("GET", path, headers={"Host": host or self.host})
            answer = connection.getresponse()
            return answer.status, len(answer.read())
        except (OSError, http.client.HTTPException):
            return 0, 0
        finally:
            connection.close()

    def browse(self) -> int:
        """As browsers do: any name server that answers, and then each address until one takes the connection."""
        found = next((x for each in self.gateways if (x := each.resolve(self.host))), set())
        return next((status for address in sorted(found) if (status := self.get(address)[0])), 0)

    def lease(self, gateway: Gateway) -> dict[str, Any]:
        """The ingress lease there, as its tenant sees it."""
        return next(
            x for x in leases(self.market) if x["service"] == "gateway" and x["provider"] == gateway.key
        )


@pytest.fixture(scope="module")
def app(market: LocalMarket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    names = [f"gate-public-{n}" for n in range(len(ADDRESSES))]
    gateways = [Gateway(market, name, at) for name, at in zip(names, ADDRESSES, strict=True)]
    file = tmp_path_factory.mktemp("public") / "compose.yaml"
    file.write_text(COMPOSE)
    compose = ("compose", "-f", str(file), "-p", NAME)
    try:
        market.docker(*compose, "up", "-d")
        assert wait_until(lambda: seen_up(market) == 4, PATIENT), public(market)
        [url] = public(market)["urls"]
        made = App(market, gateways, url["url"].removeprefix("https://"))
        yield made
        market.docker(*compose, "down")
        assert wait_until(lambda: all(x["state"] == "ended" for x in leases(market)), PATIENT), leases(market)
        assert public(market)["urls"] == []
        assert [made.get(x.address)[0] for x in gateways] == [404, 404]
    finally:
        market.docker(*compose, "down", check=False)
        for name in names:
            market.remove_provider(name)


def public(market: LocalMarket) -> dict[str, Any]:
    found = market.tenant.ask("GET", "/v1/public")["deployments"]
    return next((x for x in found if x["deployment"] == NAME), {"urls": [], "gateways": []})


def seen_up(market: LocalMarket) -> int:
    return sum(not x["misses"] for way in public(market)["gateways"] for x in way["replicas"])


@pytest.mark.timeout(300)
def test_an_app_on_the_internet_outlives_a_machine(app: App) -> None:
    gate = app.gateways[0]
    assert app.host.endswith("." + ZONE)
    assert app.get(gate.address)[0] == 200
    assert app.get(gate.address, "other." + ZONE)[0] == 404
    assert wait_until(lambda: gate.address in gate.resolve(app.host), PATIENT)
    assert app.lease(gate)["deployment"] == NAME
    victim = victim_of(app.market)
    victim.kill()
    try:
        answers = wait_until(lambda: [app.get(gate.address)[0] for _ in range(10)] == [200] * 10, PATIENT)
        assert answers
        assert victim.process_ended(), "it is the other one that answers"
    finally:
        victim.start()


@pytest.mark.timeout(300)
def test_it_outlives_a_gateway_which_comes_back_to_its_lease(app: App) -> None:
    """Nothing that was agreed on before the crash is lost, and at each tick both sides have the same bill."""
    victim, other = app.gateways
    before = app.lease(victim)
    assert wait_until(lambda: other.resolve(app.host) == set(ADDRESSES), PATIENT), (
        "both serve, both are named"
    )
    assert [app.get(victim.address, path="/long") for _ in range(5)] == [(200, LONG)] * 5
    bytes_before = before["usage"]["net_out_bytes"] + 5 * LONG
    assert wait_until(lambda: app.lease(victim)["usage"]["net_out_bytes"] >= bytes_before, PATIENT)
    agreed = app.lease(victim)
    victim.node.kill()
    try:
        assert [app.browse() for _ in range(10)] == [200] * 10, "the other one is named, too"
        assert wait_until(lambda: other.resolve(app.host) == {other.address}, PATIENT)
        assert [app.get(other.address)[0] for _ in range(5)] == [200] * 5
    finally:
        victim.node.start()
    assert wait_until(lambda: app.get(victim.address)[0] == 200, PATIENT)
    assert wait_until(lambda: victim.address in victim.resolve(app.host), PATIENT)
    assert [app.get(victim.address, path="/long") for _ in range(5)] == [(200, LONG)] * 5
    assert wait_until(
        lambda: app.lease(victim)["usage"]["net_out_bytes"] >= agreed["usage"]["net_out_bytes"] + 5 * LONG,
        PATIENT,
    )
    after = app.lease(victim)
    assert (after["lease"], after["state"], after["dispute"]) == (before["lease"], "running", None)
    assert after["ticks"] > agreed["ticks"]
    assert after["due_msat"] > agreed["due_msat"]
    assert wait_until(lambda: both_bill_alike(app, victim), PATIENT), app.lease(victim)


def both_bill_alike(app: App, gateway: Gateway) -> bool:
    """At one tick, for they go on while we look."""
    mine = app.lease(gateway)
    sold = gateway.node.ask("GET", "/v1/earnings")["leases"]
    its = next(x for x in sold if x["lease"] == mine["lease"])
    return bool((its["ticks"], its["due_msat"]) == (mine["ticks"], mine["due_msat"]))


def victim_of(market: LocalMarket) -> NodeProcess:
    """Whom our user's own commands go to."""
    [kept] = market.tenant.ask("GET", "/v1/deployments")["deployments"]
    key = next(x["provider"] for x in kept["replicas"] if x["primary"])
    return next(n for n in market.providers.values() if not n.process_ended() and n.key == key)
