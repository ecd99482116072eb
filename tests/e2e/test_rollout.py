"""A changed service behind a gateway: the new one takes over without a lost request, a bad one never gets any."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devtools.localmarket import LocalMarket
from devtools.regtest import free_port
from devtools.shell import wait_until
from e2e.stories import IMAGE, leases

NAME, GATE = "story-rollout", "gate-rollout"
PATIENT = 60


def project(greeting: str, then: str = "exec httpd -f -p 80 -h /www") -> str:
    return f"""
services:
  web:
    image: {IMAGE}
    pull_policy: never
    command: ["sh", "-c", "mkdir -p /www && echo {greeting} > /www/index.html && {then}"]
    init: true
    stop_grace_period: 1s
    labels: {{dockage.public: "80", dockage.update-monitor: "1", dockage.update-within: "60"}}
    deploy: {{resources: {{limits: {{cpus: "0.5", memory: 64M}}}}}}
"""


@pytest.fixture
def http_port(market: LocalMarket) -> Iterator[int]:
    """Of a gateway that is there for this story."""
    port, names = free_port(), free_port(socket.SOCK_DGRAM)
    here = f'http = "127.0.0.1:{port}"\ndns = "127.0.0.1:{names}"\nbind = "127.0.0.1"\n'
    market.add_gateway(GATE, f'zone = "rollout.example"\npublic = ["203.0.113.7"]\nface = false\n{here}')
    yield port
    market.remove_provider(GATE)


class Visitors:
    """One after the other; what each got."""

    def __init__(self, port: int, host: str) -> None:
        self._port, self._host, self._over = port, host, threading.Event()
        self.got: list[str] = []

    def visit(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=40)
        try:
            connection.request("GET", "/", headers={"Host": self._host})
            answer = connection.getresponse()
            return answer.read().decode().strip() if answer.status == 200 else str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()

    def _come(self) -> None:
        while not self._over.wait(0.1):
            self.got.append(self.visit())

    @contextmanager
    def coming(self) -> Iterator[None]:
        thread = threading.Thread(target=self._come)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def kept(market: LocalMarket) -> dict[str, Any]:
    found = market.tenant.ask("GET", "/v1/deployments")["deployments"]
    return next(
        (x for x in found if x["deployment"] == NAME), {"rollout": "", "setback": None, "replicas": []}
    )


@pytest.mark.timeout(300)
def test_a_change_loses_no_request_and_a_bad_one_is_taken_back(
    market: LocalMarket, http_port: int, tmp_path: Path
) -> None:
    file = tmp_path / "compose.yaml"
    compose = ("compose", "-f", str(file), "-p", NAME)
    try:
        file.write_text(project("one"))
        market.docker(*compose, "up", "-d")
        assert wait_until(lambda: seen_up_there(market) == 1, PATIENT), named(market)
        [url] = named(market)["urls"]
        visitors = Visitors(http_port, url["url"].removeprefix("https://"))
        assert wait_until(lambda: visitors.visit() == "one", PATIENT)
        with visitors.coming():
            file.write_text(project("two"))
            market.docker(*compose, "up", "-d")
            assert wait_until(lambda: visitors.got[-1:] == ["two"], PATIENT), kept(market)
            assert wait_until(lambda: not kept(market)["rollout"], PATIENT), kept(market)
            assert wait_until(lambda: len(running(market)) == 1, PATIENT), running(market)
            file.write_text(project("three", "exit 1"))
            market.docker(*compose, "up", "-d")
            assert wait_until(lambda: kept(market)["setback"], PATIENT), kept(market)
            assert wait_until(lambda: not kept(market)["rollout"], PATIENT), kept(market)
            assert wait_until(lambda: len(running(market)) == 1, PATIENT), running(market)
        assert set(visitors.got) == {"one", "two"}
        assert kept(market)["setback"]["code"] == "deploy.unhealthy"
        shown = market.docker(*compose, "ps", "--format", "{{.Command}} {{.State}}").stdout
        assert "echo two" in shown or "running" in shown
        assert "two" in market.docker(*compose, "exec", "-T", "web", "cat", "/www/index.html").stdout
    finally:
        market.docker(*compose, "down", check=False)
    assert wait_until(lambda: all(x["state"] == "ended" for x in leases(market)), PATIENT), leases(market)


def named(market: LocalMarket) -> dict[str, Any]:
    found = market.tenant.ask("GET", "/v1/public")["deployments"]
    return next((x for x in found if x["deployment"] == NAME), {"urls": [], "gateways": []})


def seen_up_there(market: LocalMarket) -> int:
    return sum(not x["misses"] for way in named(market)["gateways"] for x in way["replicas"])


def running(market: LocalMarket) -> list[dict[str, Any]]:
    return [x for x in leases(market) if x["state"] == "running" and x["service"] == "engine"]
