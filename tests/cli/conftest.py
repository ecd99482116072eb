"""How tests of the command line call it: in this process, its own output and exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dockage.cli import process
from dockage.cli.errors import NotRunning
from dockage.cli.main import main

from .homes import Run
from .parts import served

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's surroundings."""
    for name in ("DOCKAGE_HOME", "DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def call(home: Path) -> Call:
    """``call("spend", "--json")`` runs ``dockage --home HOME spend --json``."""

    def run(*words: str, **more: Any) -> Result:
        done = CliRunner().invoke(main, ["--home", str(home), *words], **more)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done

    return run


@pytest.fixture
def node(home: Path) -> Iterator[Any]:
    """A node that rents, sells and has a wallet."""
    with served(home, provider={"enabled": True}, bitcoin={"network": "regtest"}) as here:
        yield here


def value(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first in PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def at(home: Path) -> Iterator[Callable[[str], Run]]:
    """``at("buyer")`` runs commands at a home of that name; its daemon is stopped in the end."""
    homes: list[Path] = []

    def run(name: str) -> Run:
        homes.append(home / name)
        return Run(home / name)

    yield run
    for one in homes:
        with suppress(NotRunning):
            process.stop(one)
