"""One real life, with nothing but our own commands: sell, buy, look, take down. Two nodes, two engines, for free."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from .homes import ON_LOOPBACK, Run, free_port

COMPOSE = """
name: tea
services:
  web:
    image: dockage/web:bookworm
    pull_policy: never
    ports: ["127.0.0.1:{port}:80"]
    deploy: {{resources: {{limits: {{cpus: "0.5", memory: 64M}}, reservations: {{cpus: "0.125", memory: 16M}}}}}}
"""


@pytest.mark.timeout(300)
def test_sell_buy_look_and_take_down(
    at: Callable[[str], Run],
    tenant_engine: Path,
    provider_engine: Path,
    docker_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(docker_config))
    seller, buyer, port = at("seller"), at("buyer"), free_port()
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(port=port))
    files = ("-f", str(tmp_path / "compose.yaml"))

    sold = seller.value(
        "provide", "--free", "--engine", str(provider_engine), "--market", *ON_LOOPBACK, "--detach"
    )
    assert sold["provider"]["published_at"] >= 1
    assert sold["machine"]["engine_version"]
    seed = f"{sold['node']}@{sold['addresses'][0]}"
    buyer("daemon", "--detach", "--seed", seed, "--set", f"tenant.engine={tenant_engine}", *ON_LOOPBACK)
    offers = buyer.value("market")["offers"]
    assert [(offer["provider"], offer["obstacles"]) for offer in offers] == [(sold["node"], [])]

    up = buyer.value("up", *files)
    assert up["urls"] == [{"service": "web", "url": f"http://127.0.0.1:{port}", "port": 80}]
    with urllib.request.urlopen(up["urls"][0]["url"], timeout=20) as page:
        assert page.status == 200
    assert "tea-web-1" in buyer("ps")
    assert [c["Service"] for c in buyer.value("ps", *files)["containers"]] == ["web"]
    lease = buyer.value("spend")["leases"][0]
    assert (lease["deployment"], lease["state"], lease["provider"]) == ("tea", "running", sold["node"])
    assert (lease["limits"]["cpu_soft_milli"], lease["limits"]["memory_soft_bytes"]) == (375, 48 << 20)
    assert seller.value("earnings")["running"] == 1

    again = buyer.value("up", *files)  # nothing to do, and nothing is rented twice
    assert again["lease"] == lease["lease"]

    down = buyer.value("down", *files)
    assert [(one["lease"], one["state"]) for one in down["leases"]] == [(lease["lease"], "ended")]
    assert buyer.value("spend")["leases"] == []
    assert seller.value("earnings")["running"] == 0
