"""``dockage link``: what it shows, how it ends, and a private cloud of two real machines with nothing around them."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dockage.cli.client import Client
from dockage.cli.process import wait_until
from dockage.daemon.node import Node

from .conftest import Call
from .homes import DOCKAGE, ON_LOOPBACK, Run, free_port
from .parts import TENANT

ON_LAN = (*ON_LOOPBACK, "--set", 'node.lan_interfaces=["127.0.0.1"]')
COMPOSE = """
name: tea
services:
  web:
    image: dockage/web:bookworm
    pull_policy: never
    ports: ["127.0.0.1:{port}:80"]
    deploy: {{resources: {{limits: {{cpus: "0.5", memory: 64M}}}}}}
"""


@contextmanager
def showing(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """``dockage link`` as from a terminal, where Ctrl-C reaches it."""
    command = ("env", "--default-signal=INT", *DOCKAGE, "--home", str(home), "link", *words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.usefixtures("node")
def test_ctrl_c_takes_the_code_back(home: Path) -> None:
    with showing(home) as link:
        assert link.stdout is not None
        first = link.stdout.readline()
        assert first.startswith("On the other machine, within ten minutes")
        assert Client(home).get("link")["state"] == "waiting"
        link.send_signal(signal.SIGINT)
        link.wait(20)
    shown = Client(home).get("link")
    assert (shown["state"], shown["reason"]["code"]) == ("closed", "link.cancelled")


@pytest.mark.usefixtures("node")
def test_the_code_is_shown_in_both_forms_with_a_picture_and_why_it_ended(call: Call, home: Path) -> None:
    def cancel() -> None:
        client = Client(home)
        assert wait_until(lambda: _is_shown(client), 20)
        client.post("link", "cancel")

    other = threading.Thread(target=cancel)
    other.start()
    done = call("link", "--qr")
    other.join()
    short, long = (line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  dockage link"))
    assert long.startswith(f"{short}@")
    assert long.endswith("@127.0.0.1:1001")
    assert "█" in done.stdout or "▀" in done.stdout
    assert done.exit_code == 1
    assert "link.cancelled" in done.stderr


def _is_shown(client: Client) -> bool:
    try:
        return bool(client.get("link")["code"])
    except Exception:
        return False


@pytest.mark.usefixtures("node")
def test_machines_are_listed_and_removed_by_name(call: Call) -> None:
    listed = call("link", "list").stdout.splitlines()
    assert listed[1].split()[:2] == ["laptop", TENANT.node.hex()[:8]]
    assert listed[1].endswith("has not answered yet")
    gone = call("link", "remove", "laptop", "--yes")
    assert f"laptop ({TENANT.node.hex()[:8]}) is no machine of yours any more" in gone.stdout
    assert call("link", "list").stdout == "no machine is linked\n"
    again = call("link", "remove", "laptop", "--yes")
    assert (again.exit_code, "link.unknown" in again.stderr) == (1, True)


def test_what_is_no_code_is_said_at_once(call: Call, node: Node) -> None:
    done = call("link", "742-lusab")
    assert (done.exit_code, "link.code" in done.stderr) == (1, True)
    done = call("link", "nonsense")
    assert (done.exit_code, "link.code" in done.stderr) == (1, True), (
        "a word is taken for a code, not for a command"
    )
    assert node.linking.shown is None


@pytest.mark.timeout(120)
def test_a_private_cloud_of_two_machines_and_nothing_else(
    at: Callable[[str], Run],
    tenant_engine: Path,
    provider_engine: Path,
    docker_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No market node, no seed, no wallet, no chain: a code, and ``docker compose up`` on the other machine."""
    monkeypatch.setenv("DOCKER_CONFIG", str(docker_config))
    desk, laptop, port = at("desk"), at("laptop"), free_port()
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(port=port))
    files = ("-f", str(tmp_path / "compose.yaml"))

    named = ("--set", "node.name=desk", *ON_LAN)
    sold = desk.value("provide", "--only-for", "own", "--engine", str(provider_engine), *named, "--detach")
    assert (sold["provider"]["only_own"], sold["bitcoin"]) == (True, None)
    laptop("daemon", "--detach", "--set", f"tenant.engine={tenant_engine}", *ON_LAN)
    here, there = Client(laptop.home), Client(desk.home)
    with showing(desk.home, "--json") as link:
        assert link.stdout is not None
        code = json.loads(link.stdout.readline())["code"]
        assert laptop.value("link", code)["name"] == "desk"
        assert json.loads(link.stdout.readline())["node"] == here.get("status")["node"]
        assert link.wait(20) == 0

    offers = here.post("market")["offers"]
    assert [(o["provider"], o["msat_hour_max"], o["obstacles"]) for o in offers] == [(sold["node"], 0, [])]
    up = laptop.value("up", *files)
    with urllib.request.urlopen(up["urls"][0]["url"], timeout=20) as page:
        assert page.status == 200
    assert here.get("spend")["due_msat"] == 0
    assert there.get("earnings")["running"] == 1
    laptop("down", *files)
    assert here.get("channels")["channels"] == []
    assert here.get("machines")["machines"][0]["sells"]
