"""An app on the internet that stays up: a gateway, two providers, all real, and a machine that dies on the way."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import pytest

from devtools.localmarket import LocalMarket, NodeProcess
from devtools.regtest import free_port
from devtools.shell import wait_until
from e2e.stories import IMAGE, leases

NAME, ZONE, ADDRESS = "story-public", "gw.example", "203.0.113.7"
PATIENT = 60
COMPOSE = f"""
services:
  web:
    image: {IMAGE}
    pull_policy: never
    command: ["sh", "-c", "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www"]
    init: true
    stop_grace_period: 1s
    labels: {{dockage.public: "80", dockage.replicas: "2"}}
    deploy: {{resources: {{limits: {{cpus: "0.5", memory: 64M}}}}}}
"""


class Gateway:
    def __init__(self, market: LocalMarket, name: str) -> None:
        """*name*: nobody else's in this market, ever."""
        self.http, self.dns = free_port(), free_port(socket.SOCK_DGRAM)
        here = f'http = "127.0.0.1:{self.http}"\ndns = "127.0.0.1:{self.dns}"\nbind = "127.0.0.1"\n'
        self.node: NodeProcess = market.add_gateway(
            name, f'zone = "{ZONE}"\npublic = ["{ADDRESS}"]\nface = false\n{here}'
        )

    def get(self, host: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=40)
        try:
            connection.request("GET", "/", headers={"Host": host})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def resolve(self, name: str) -> list[str]:
        try:
            query = dns.message.make_query(name, "A")
            answer = dns.query.udp(query, "127.0.0.1", timeout=2, port=self.dns)
        except (dns.exception.DNSException, OSError):
            return []
        return [each.to_text() for record in answer.answer for each in record]


@pytest.fixture
def gateway(market: LocalMarket, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    name = f"gate-{request.path.stem}"
    made = Gateway(market, name)
    yield made
    market.remove_provider(name)


def public(market: LocalMarket) -> dict[str, Any]:
    found = market.tenant.ask("GET", "/v1/public")["deployments"]
    return next((x for x in found if x["deployment"] == NAME), {"urls": [], "gateways": []})


def seen_up(market: LocalMarket) -> int:
    return sum(not x["misses"] for way in public(market)["gateways"] for x in way["replicas"])


@pytest.mark.timeout(300)
def test_an_app_on_the_internet_outlives_a_machine(
    market: LocalMarket, gateway: Gateway, tmp_path: Path
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE)
    compose = ("compose", "-f", str(file), "-p", NAME)
    try:
        market.docker(*compose, "up", "-d")
        assert wait_until(lambda: public(market)["urls"], PATIENT), public(market)
        [url] = public(market)["urls"]
        host = url["url"].removeprefix("https://")
        assert host.endswith("." + ZONE)
        assert wait_until(lambda: seen_up(market) == 2, PATIENT), public(market)
        assert gateway.get(host) == 200
        assert gateway.get("other." + ZONE) == 404
        assert wait_until(lambda: gateway.resolve(host) == [ADDRESS], PATIENT)
        [ingress] = [x for x in leases(market) if x["ingress"] and x["state"] == "running"]
        assert ingress["deployment"] == NAME
        victim = victim_of(market)
        victim.kill()
        assert wait_until(lambda: [gateway.get(host) for _ in range(10)] == [200] * 10, PATIENT)
        assert victim.process_ended(), "it is the other one that answers"
    finally:
        for node in market.providers.values():
            if node.process_ended():
                node.start()
        market.docker(*compose, "down", check=False)
    assert wait_until(lambda: all(x["state"] == "ended" for x in leases(market)), PATIENT), leases(market)
    assert public(market)["urls"] == []
    assert gateway.get(host) == 404


def victim_of(market: LocalMarket) -> NodeProcess:
    """Whom our user's own commands go to."""
    [kept] = market.tenant.ask("GET", "/v1/deployments")["deployments"]
    key = next(x["provider"] for x in kept["replicas"] if x["primary"])
    return next(n for n in market.providers.values() if n.key == key)
