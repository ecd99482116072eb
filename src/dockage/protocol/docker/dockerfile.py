"""A container's configuration as Dockerfile instructions: how ``docker import`` is told what an image runs.

Only those that the engine takes there (Engine API v1.44, ImageCreate ``changes``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .front_errors import ApiError

Doc = dict[str, Any]


def instructions(config: Doc) -> list[str]:
    """Of the ``Config`` of an inspect. Raises ApiError(400) for a value that no instruction can say."""
    found = list(_instructions(config))
    for line in found:
        if "\n" in line or "\r" in line:
            raise ApiError(400, f"a line break in {line.split(maxsplit=1)[0]} cannot be kept in an image")
    return found


def _instructions(config: Doc) -> Iterator[str]:
    for pair in config.get("Env") or ():
        name, _, value = str(pair).partition("=")
        yield f"ENV {name}={_quoted(value)}"
    for name, value in (config.get("Labels") or {}).items():
        yield f"LABEL {_quoted(name)}={_quoted(str(value))}"
    yield from (f"EXPOSE {port}" for port in config.get("ExposedPorts") or ())
    yield from (f"VOLUME {json.dumps([path])}" for path in config.get("Volumes") or ())
    if config.get("User"):
        yield f"USER {config['User']}"
    if config.get("WorkingDir"):
        yield f"WORKDIR {config['WorkingDir']}"
    for word in ("Entrypoint", "Cmd"):  # in this order: ENTRYPOINT takes an earlier CMD away
        if config.get(word):
            yield f"{word.upper()} {json.dumps(config[word])}"
    if test := (config.get("Healthcheck") or {}).get("Test"):
        yield _healthcheck(config["Healthcheck"], test)


def _healthcheck(check: Doc, test: list[str]) -> str:
    kind, *rest = test
    if kind == "NONE":
        return "HEALTHCHECK NONE"
    times = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
    options = [f"--{flag}={check[field]}ns" for flag, field in times.items() if check.get(field)]
    options += [f"--retries={check['Retries']}"] if check.get("Retries") else []
    command = json.dumps(rest) if kind == "CMD" else " ".join(rest)
    return " ".join(["HEALTHCHECK", *options, "CMD", command])


def _quoted(text: str) -> str:
    """In double quotes, where a backslash, a quote and a dollar (a variable) need a backslash before them."""
    for character in '\\"$':
        text = text.replace(character, "\\" + character)
    return f'"{text}"'
