"""A laptop is killed; its deputy, which has no Docker engine, runs the same container, and gives it back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.localmarket import LocalMarket, NodeProcess, together
from devtools.shell import Failed, wait_until
from e2e.stories import IMAGE

NAME, REGION = "story-deputy", "attic"
PATIENT = 120
PROJECT = f"""
services:
  web:
    image: {IMAGE}
    pull_policy: never
    command: ["sh", "-c", "mkdir -p /www && echo $$WORD > /www/index.html && exec httpd -f -p 80 -h /www"]
    environment: {{WORD: hello}}
    init: true
    labels: {{dockage.region: {REGION}}}
    deploy: {{resources: {{limits: {{cpus: "0.5", memory: 64M}}}}}}
"""


class House:
    """A laptop with an engine, a desk without one, and a provider that sells to these two alone, for nothing."""

    def __init__(self, market: LocalMarket, tenant_engine: Path, provider_engine: Path) -> None:
        self.market, self._provider_engine = market, provider_engine
        node = f'[node]\nbind = "127.0.0.1:0"\nseeds = {json.dumps(market.seeds)}\nstamp_bits = 8\n'
        engines = {"laptop": str(tenant_engine), "desk": ""}
        self.laptop, self.desk = (
            NodeProcess(market.folder / name, f'{node}name = "{name}"\n[tenant]\nengine = "{engine}"\n')
            for name, engine in engines.items()
        )
        keys = json.dumps([x.make_key() for x in (self.laptop, self.desk)])
        sells = f'enabled = true\nregion = "{REGION}"\nengine = "{provider_engine}"\n'
        whom = f"only_for = {keys}\n"
        room = "cpu_milli = 2000\nmemory_mib = 512\ndisk_mib = 4096\n"
        free = "[provider.tariff]\ncpu_hour = 0\n"
        attic = f"{node}[provider]\n{sells}{whom}{room}{free}[tenant]\nenabled = false\n"
        self.attic = NodeProcess(market.folder / "attic", attic)

    @property
    def nodes(self) -> tuple[NodeProcess, ...]:
        return self.laptop, self.desk, self.attic

    def link(self) -> None:
        code = self.desk.ask("POST", "/v1/link/show")["long_code"]
        self.laptop.ask("POST", "/v1/link/accept", {"code": code})

    def compose(self, file: Path, *words: str) -> str:
        return self.market.docker("compose", "-f", str(file), "-p", NAME, *words, tenant=self.laptop).stdout

    def says(self) -> set[str]:
        """What each container of it says that runs at the provider."""
        here = ("docker", "-H", f"unix://{self._provider_engine}")
        label = f"label=com.docker.compose.project={NAME}"
        ids = subprocess.run([*here, "ps", "-q", "-f", label], capture_output=True, text=True, timeout=60)
        get = ("wget", "-qO-", "http://127.0.0.1/")
        return {
            subprocess.run(
                [*here, "exec", x, *get], capture_output=True, text=True, timeout=60
            ).stdout.strip()
            for x in ids.stdout.split()
        }

    def shown(self, node: NodeProcess) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = node.ask("GET", "/v1/deployments")["deployments"]
        return found

    def serves(self, node: NodeProcess) -> bool:
        try:
            found = self.shown(node)
        except (OSError, Failed):
            return False
        stages = [x["state"] for one in found for x in one["replicas"] if NAME in one["deployment"]]
        return stages == ["serving"]

    def end(self) -> None:
        """What is left of a story that failed, by whoever rents it."""
        for node in (self.laptop, self.desk):
            try:
                for lease in node.ask("GET", "/v1/spend")["leases"]:
                    if lease["state"] != "ended":
                        node.ask("POST", f"/v1/leases/{lease['lease']}/end")
            except (OSError, Failed):
                continue
        wait_until(lambda: not self.left(), PATIENT)

    def left(self) -> list[dict[str, Any]]:
        leases = self.attic.ask("GET", "/v1/earnings")["leases"]
        return [x for x in leases if x["state"] != "ended"]


@pytest.fixture
def house(market: LocalMarket, tenant_engine: Path, provider_engine: Path) -> Iterator[House]:
    house = House(market, tenant_engine, provider_engine)
    try:
        together(*house.nodes)
        yield house
    finally:
        house.end()
        for node in house.nodes:
            node.terminate()
        for node in house.nodes:
            node.stop()


@pytest.mark.timeout(400)
def test_a_killed_laptops_deployment_goes_on_at_its_deputy(house: House, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(PROJECT)
    house.link()
    assert wait_until(lambda: _offered(house), PATIENT)
    house.compose(file, "up", "-d")
    asked = {"deployment": NAME, "machine": "desk"}
    house.laptop.ask("POST", "/v1/deputies", asked, seconds=PATIENT)
    assert house.says() == {"hello"}
    house.laptop.kill()
    assert wait_until(lambda: house.serves(house.desk), PATIENT), house.desk.ask("GET", "/v1/deputies")
    assert wait_until(lambda: house.says() == {"hello"}, PATIENT), house.says()
    house.laptop.start()
    assert wait_until(lambda: _is_ours(house), PATIENT), house.laptop.ask("GET", "/v1/deputies")
    assert wait_until(lambda: not house.shown(house.desk), PATIENT)
    assert wait_until(lambda: house.serves(house.laptop), PATIENT), house.shown(house.laptop)
    assert wait_until(lambda: len(house.left()) == 1, PATIENT), house.left()
    assert house.compose(file, "exec", "-T", "web", "cat", "/www/index.html") == "hello\n"
    house.compose(file, "down")
    assert wait_until(lambda: not house.laptop.ask("GET", "/v1/deputies")["mine"], PATIENT)
    assert wait_until(lambda: not house.left(), PATIENT), house.left()


def _is_ours(house: House) -> bool:
    return [x["ours"] for x in house.laptop.ask("GET", "/v1/deputies")["mine"]] == [True]


def _offered(house: House) -> bool:
    try:
        found = [
            x.ask("POST", "/v1/market", {"labels": {"dockage.region": REGION}})["offers"]
            for x in (house.laptop, house.desk)
        ]
    except Failed:
        return False
    return all(found)
