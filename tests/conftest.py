"""Fixtures that several folders share.

Under ``script/test`` both engines run already and are named in the environment. Without it a test that
asks for one gets its own, thrown away at the end of the session; where that cannot be, it is skipped.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from bitcoin.node import Node
    from hostlab import Lab

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / os.environ.get("DOCKAGE_DEV", ".dev")
START_SECONDS = 120

# How long an example takes says what else the machine does. Half of the usual examples: the suite runs often.
hypothesis.settings.register_profile(
    "dockage", deadline=None, max_examples=50, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("dockage")


def pytest_collection_finish() -> None:
    """Thousands of tests are objects that stay: looking through them for garbage again and again took a fifth of
    the time of the tests that compute. Frozen, they are also shared by the children that a test forks."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home() -> Iterator[Path]:
    """A node's folder. Not ``tmp_path``: the path of a unix socket in it may have 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="dk-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def lab(engine_lab: Lab) -> Iterator[Lab]:
    """Each folder's ``engine_lab``, with this thread in its network."""
    with engine_lab.inside():
        yield engine_lab


@pytest.fixture(scope="session")
def tenant_engine() -> Iterator[Path]:
    """The socket of the Docker engine on the tenant's machine, with the images of ``script/images``."""
    yield from engine("tenant")


@pytest.fixture(scope="session")
def provider_engine() -> Iterator[Path]:
    """The socket of another engine, the provider's: it has its own images, networks and data."""
    yield from engine("provider")


@pytest.fixture(scope="session")
def bitcoind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A real node on regtest, one for the session; it serves light clients, too."""
    from bitcoin.node import running

    with running(tmp_path_factory) as node:
        yield node


@pytest.fixture(scope="session")
def current_engine() -> Iterator[Path]:
    """The socket of an engine of 28 or newer, for what must work on old and new ones."""
    if not (DEV / "current-engine" / "dockerd").exists():
        pytest.skip("no current engine: run script/setup")
    yield from engine("current", load=False)


@pytest.fixture(scope="session")
def docker_config() -> Path:
    """The folder for ``DOCKER_CONFIG``: with it, ``docker compose`` is there."""
    folder = Path(os.environ.get("DOCKER_CONFIG", DEV / "docker-config"))
    if not (folder / "cli-plugins" / "docker-compose").exists():
        pytest.skip("no docker compose: run script/setup")
    return folder


def engine(role: str, load: bool = True) -> Iterator[Path]:
    given = os.environ.get(f"DOCKAGE_TEST_{role.upper()}_ENGINE")
    if given:
        yield Path(given)
        return
    skip_without_docker()
    name = f"{role}-{os.getpid()}"
    try:
        script("engines", "start", name)
        if load:
            script("images", "load", name)
        yield Path(script("engines", "socket", name))
    finally:
        script("engines", "stop", name)


def skip_without_docker() -> None:
    if os.geteuid() != 0:
        pytest.skip("a Docker engine of our own needs root")
    if not shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("no dockerd: run script/setup")


def script(name: str, *arguments: str) -> str:
    command = [str(ROOT / "script" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS)
    assert done.returncode == 0, f"script/{name} {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()
