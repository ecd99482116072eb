"""Run a system tool: list of arguments, no shell, a limit on time, its words in the error."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Iterable, Sequence
from typing import NamedTuple, Protocol

from dockage.domain.errors import Unavailable

PATIENCE = 30.0
"""Seconds. mkfs of a big sparse file takes 1, iptables waits up to 5 for its lock."""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


class Run(Protocol):
    async def __call__(self, argv: Sequence[str], text: str = "") -> Outcome: ...


async def run(argv: Sequence[str], text: str = "") -> Outcome:
    """Any exit code is an outcome. Raises Unavailable("host.tool") when there is no such tool or it hangs."""
    # In a thread: uvloop's pipe to a child that ends before it read its input raises RuntimeError.
    return await asyncio.to_thread(_run, argv, text)


def _run(argv: Sequence[str], text: str) -> Outcome:
    try:
        done = subprocess.run(argv, input=text.encode(), capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Unavailable("host.tool", f"{' '.join(argv)} did not end within {PATIENCE:.0f} s") from None
    except OSError as error:
        raise Unavailable("host.tool", f"{argv[0]} cannot be run ({error}); install it") from error
    return Outcome(
        done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


async def must(execute: Run, argv: Sequence[str], text: str = "") -> str:
    """Its output. Raises Unavailable("host.tool") with its words on any other exit code than 0."""
    outcome = await execute(argv, text)
    if outcome.code:
        raise Unavailable("host.tool", f"{' '.join(argv)} failed: {outcome.err.strip() or outcome.code}")
    return outcome.out


async def together(work: Iterable[Awaitable[None]]) -> None:
    """All at once; then the first failure, as itself: a group of exceptions would not be a port's answer."""
    for end in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(end, BaseException):
            raise end
