"""What the scripts promise to the tests, the demo and to whoever tries things."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def docker(engine: Path, *arguments: str) -> str:
    command = ["docker", "--host", f"unix://{engine}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_the_two_engines_are_two(tenant_engine: Path, provider_engine: Path) -> None:
    docker(tenant_engine, "tag", "dockage/base:bookworm", "dockage-test/mine")
    try:
        assert docker(tenant_engine, "images", "-q", "dockage-test/mine")
        assert docker(provider_engine, "images", "-q", "dockage-test/mine") == ""
    finally:
        docker(tenant_engine, "rmi", "dockage-test/mine")


def test_an_image_has_the_same_id_on_both(tenant_engine: Path, provider_engine: Path) -> None:
    for image in "dockage/base:bookworm", "dockage/web:bookworm":
        theirs = docker(provider_engine, "images", "-q", "--no-trunc", image)
        assert theirs.startswith("sha256:")
        assert docker(tenant_engine, "images", "-q", "--no-trunc", image) == theirs


def test_a_web_server_without_any_capability_serves(provider_engine: Path) -> None:
    name = f"tidy-web-{os.getpid()}"
    docker(provider_engine, "run", "-d", "--name", name, "--cap-drop", "ALL", "dockage/web:bookworm")
    try:
        fetch = "for i in 1 2 3 4 5 6 7 8 9 10; do wget -qO- http://127.0.0.1/health && exit; sleep 0.2; done; exit 1"
        assert docker(provider_engine, "exec", name, "sh", "-c", fetch) == "ok"
    finally:
        docker(provider_engine, "rm", "-fv", name)


@pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox needs root")
def test_nothing_leaves_the_sandbox(tmp_path: Path) -> None:
    """No route leads out of it, and what is started in it ends with it."""
    shell = f"ip route get 192.0.2.77 2>&1; sleep 1000 & echo $!; ip -o link | wc -l; touch {tmp_path}/ran"
    done = subprocess.run(
        [ROOT / "script/sandbox", "sh", "-c", shell], stdout=subprocess.PIPE, text=True, timeout=30
    )
    answer, _, links = done.stdout.splitlines()
    assert "unreachable" in answer
    assert links == "3"  # lo, and a cable with both its ends
    assert done.returncode == 0
    assert (tmp_path / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox needs root")
def test_the_sandbox_says_how_its_command_ended() -> None:
    assert subprocess.run([ROOT / "script/sandbox", "sh", "-c", "exit 7"], timeout=30).returncode == 7
