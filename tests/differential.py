"""The same raw requests to two Docker sockets, and what the answers differ in.

A ``Case`` is one request; ``play`` runs a list of them against one socket and keeps each ``Answer``. What may differ
from run to run (ids, times, addresses, sizes) is replaced by a word for it, so that answers compare by ``==``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11

PATIENCE = 5.0


@dataclass(frozen=True)
class Case:
    """``{word}`` in target and body stands for what an earlier case saved."""

    method: str
    target: str
    body: Any = None
    """bytes go as they are, anything else as JSON; None = no body."""
    after: float = 0.0
    """Seconds before it is asked: what a container says takes a moment to arrive."""
    save: str = ""
    """Keep the answer's ``Id`` under this word."""
    kind: str = "application/json"
    """Content-Type of the body."""
    stdin: bytes | None = None
    """Ask for an upgrade, send this, half-close, and read to the end."""
    apart: tuple[str, ...] = ()
    """Places (regular expressions on ``$.A.B``) that are meant to differ."""
    status: int = 0
    """What we answer where the plain engine (20.10) answers something else on purpose; its body may differ then."""
    why: str = ""


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None


async def play(socket: Path, cases: Sequence[Case]) -> list[Answer]:
    known: dict[str, str] = {}
    answers = []
    for case in cases:
        await asyncio.sleep(case.after)
        try:
            answer = await asyncio.wait_for(ask(socket, case, known), PATIENCE)
        except TimeoutError:
            answer = Answer(0, body=f"no end within {PATIENCE:.0f} s")
        if case.save and isinstance(answer.body, dict):
            known[case.save] = str(answer.body.get("Id"))
        answers.append(answer)
    return answers


async def ask(socket: Path, case: Case, known: dict[str, str]) -> Answer:
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 20)
    connection = h11.Connection(h11.CLIENT)
    body = _body(case, known)
    headers = [("Host", "docker")]
    if body is not None:
        headers += [("Content-Length", str(len(body))), ("Content-Type", case.kind)]
    if case.stdin is not None:
        headers += [("Connection", "Upgrade"), ("Upgrade", "tcp")]
    target = _filled(case.target, known)
    try:
        writer.write(connection.send(h11.Request(method=case.method, target=target, headers=headers)) or b"")
        if body:
            writer.write(connection.send(h11.Data(data=body)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        return await _answer(reader, writer, connection, case)
    finally:
        writer.close()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: h11.Connection, case: Case
) -> Answer:
    found, data = Answer(0), b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            writer.write(case.stdin or b"")
            writer.write_eof()
            first, _ = connection.trailing_data
            return Answer(101, _headers(event), bytes(first) + await reader.read())
        elif isinstance(event, h11.Response):
            found = Answer(event.status_code, _headers(event))
        elif isinstance(event, h11.Data):
            data += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            found.body = _decoded(data, found.headers.get("content-type", ""))
            return found


def _filled(text: str, known: dict[str, str]) -> str:
    for word, value in known.items():
        text = text.replace("{" + word + "}", value).replace("{" + word + ":12}", value[:12])
    return text


def _body(case: Case, known: dict[str, str]) -> bytes | None:
    if case.body is None or isinstance(case.body, bytes):
        return case.body
    return _filled(json.dumps(case.body), known).encode()


HEADERS = "content-type upgrade ostype docker-experimental cache-control pragma".split()


def _headers(event: h11.Response | h11.InformationalResponse) -> dict[str, str]:
    given = {name.decode(): value.decode() for name, value in event.headers}
    names = HEADERS[:2] if event.status_code == 101 else HEADERS
    found = {name: given[name] for name in names if name in given}
    if "x-docker-container-path-stat" in given:
        stat = json.loads(base64.b64decode(given["x-docker-container-path-stat"]))
        found["x-docker-container-path-stat"] = json.dumps(normal(stat))
    return found


def _decoded(data: bytes, kind: str) -> Any:
    if "json" not in kind:
        return data
    lines = [json.loads(line) for line in data.splitlines() if line.strip()]
    return lines[0] if len(lines) == 1 else lines


# -- what may differ -----------------------------------------------------------------------------------
VOLATILE = [
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)"), "TIME"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}(/\d+)?\b"), "IP"),
    (re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "MAC"),
    (re.compile(r"\d+ (seconds?|minutes?)|Less than a second|About a minute"), "AGO"),
]


def normal(value: Any) -> Any:
    """*value* with a word in the place of everything that no two runs have in common."""
    match value:
        case dict():
            return {normal(key): normal(inner) for key, inner in value.items()}
        case list():
            return [normal(inner) for inner in value]
        case str():
            for pattern, word in VOLATILE:
                value = pattern.sub(word, value)
            return value
        case bytes():
            return normal(value.decode("latin-1"))
        case bool() | None:
            return value
        case int() | float():
            return "NUMBER" if abs(value) > 4096 else value
        case _:
            return value


def compared(case: Case, plain: Answer, ours: Answer, apart: Sequence[str]) -> Iterator[str]:
    """What is not as it should be."""
    wanted = case.status or plain.status
    if ours.status != wanted:
        yield f"status plain {plain.status}, ours {ours.status} {ours.body!r:.200}"
    elif not case.status:
        yield from differences(plain.headers, ours.headers, (*apart, *case.apart))
        yield from differences(normal(plain.body), normal(ours.body), (*apart, *case.apart))
    elif plain.status == ours.status:
        yield "is as plain as it can be: the exception is not needed any more"


def differences(plain: Any, ours: Any, apart: Sequence[str], place: str = "$") -> Iterator[str]:
    """One line for each place that differs and is not meant to."""
    if any(re.fullmatch(pattern, place) for pattern in apart):
        return
    if isinstance(plain, dict) and isinstance(ours, dict):
        for key in sorted(plain.keys() | ours.keys()):
            here = f"{place}.{key}"
            if any(re.fullmatch(pattern, here) for pattern in apart):
                continue
            if key not in ours:
                yield f"{here} is missing, plain has {plain[key]!r}"
            elif key not in plain:
                yield f"{here} is more: {ours[key]!r}"
            else:
                yield from differences(plain[key], ours[key], apart, here)
    elif isinstance(plain, list) and isinstance(ours, list) and len(plain) == len(ours):
        for one, other in zip(plain, ours, strict=True):
            yield from differences(one, other, apart, place + "[]")
    elif plain != ours:
        yield f"{place}: plain {plain!r:.300}, ours {ours!r:.300}"
