"""Writes settings into ``config.toml``, beside what our user wrote there: comments and order stay.

Counterpart: ``loading.py``, which reads it. The rule: the file is replaced whole, and only by one that can be loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import tomlkit

from . import config, loading

Settings = dict[str, dict[str, Any]]


def unsaved(home: Path, wanted: Settings) -> list[str]:
    """Of *wanted*, as ``section.field``, what the file does not say."""
    return [f"{section}.{field}" for section, field, _ in _unsaved(home, wanted)]


def save(home: Path, wanted: Settings) -> list[str]:
    """Write it down; what was new, as ``section.field``. Raises UsageError("config.*") and has then changed nothing."""
    loading.load(home, wanted)
    new = list(_unsaved(home, wanted))
    if new:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = home / loading.FILE
        _replace(path, _with(path.read_text() if path.exists() else "", new))
    return [f"{section}.{field}" for section, field, _ in new]


def _unsaved(home: Path, wanted: Settings) -> Iterator[tuple[str, str, Any]]:
    written = loading.read(home)
    for section, values in wanted.items():
        for field, value in values.items():
            if written.get(section, {}).get(field) != value:
                yield section, field, value


def _with(text: str, new: list[tuple[str, str, Any]]) -> str:
    document = tomlkit.parse(text)
    for section, field, value in new:
        if section not in document:
            document.add(section, tomlkit.table())
        table = document[section]
        assert isinstance(table, MutableMapping)  # or it could not have been loaded
        table[field] = value
    return tomlkit.dumps(document)


def _replace(path: Path, text: str) -> None:
    """Passwords may be in it: it is nobody else's, unless our user opened it."""
    part = path.with_name(f"{path.name}.part")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(mode)
    part.replace(path)


def choose_light(home: Path, network: str) -> bool:
    """Write down that the wallet is a light one on *network*, where nothing is said of bitcoin yet. False: something
    is, so our user must do it."""
    if "bitcoin" in loading.read(home):
        bitcoin = loading.load(home).bitcoin
        return bitcoin.wallet == "light" and bitcoin.network == network
    wanted: dict[str, Any] = {"network": config.user_name(network), "wallet": "light"}
    if network == "main":
        wanted["i_understand_mainnet_is_experimental"] = True
    save(home, {"bitcoin": wanted})
    return True


def written_network(home: Path) -> str:
    """By its chain's name; "" if config.toml names none."""
    bitcoin = loading.read(home).get("bitcoin", {})
    said = str(bitcoin.get("network", "")) if isinstance(bitcoin, dict) else ""
    return config.CHAIN_NAMES.get(said, said)
