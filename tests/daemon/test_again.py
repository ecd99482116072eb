"""A daemon whose peer link gives up takes its own place; whatever else ends it is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dockage.daemon import system
from dockage.domain.errors import Unavailable


def ends_with(monkeypatch: pytest.MonkeyPatch, home: Path, error: Exception) -> list[Any]:
    """What is started then."""
    started: list[Any] = []

    async def run(*_: object) -> None:
        raise ExceptionGroup("loops", [ExceptionGroup("link", [error])])

    monkeypatch.setattr(system, "run", run)
    monkeypatch.setattr(system, "AGAIN_SEC", 0.0)
    monkeypatch.setattr(system.os, "execv", lambda *what: started.append(what))
    system.main(home)
    return started


def test_a_lost_link_starts_the_same_command_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = ends_with(monkeypatch, tmp_path / "home", Unavailable("link.lost", "the peer link gave up"))
    assert started == [(sys.executable, sys.orig_argv)]


def test_what_else_ends_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup):
        ends_with(monkeypatch, tmp_path / "home", Unavailable("journal.unwritable", "the disk is full"))
