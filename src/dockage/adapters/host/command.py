"""Run a system tool: list of arguments, no shell, a limit on time, its words in the error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise Unavailable("host.tool", f"{argv[0]} cannot be run ({error}); install it") from error
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(text.encode())
    except TimeoutError:
        raise Unavailable("host.tool", f"{' '.join(argv)} did not end within {PATIENCE:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Outcome(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


async def must(execute: Run, argv: Sequence[str], text: str = "") -> str:
    """Its output. Raises Unavailable("host.tool") with its words on any other exit code than 0."""
    outcome = await execute(argv, text)
    if outcome.code:
        raise Unavailable("host.tool", f"{' '.join(argv)} failed: {outcome.err.strip() or outcome.code}")
    return outcome.out
