"""A day's commands by both generations of the docker CLI: Debian 12's, of 2021, and a current one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import termios
from pathlib import Path

import pytest

from frontlab import CLIS, LIMITS, Result, Tenant, cli_of, until
from hostlab import IMAGE

SCRIPT = 'cat; echo "$PWD $A"; exit 5'
TALKS = "echo one; echo bad >&2; trap 'echo bye; exit 4' TERM; while sleep 0.1; do :; done"


class Cli:
    def __init__(self, tenant: Tenant, program: str) -> None:
        self.tenant, self.program = tenant, program

    async def tried(self, *words: str, stdin: bytes = b"") -> Result:
        return await self.tenant.tried(*words, stdin=stdin, program=self.program)

    async def __call__(self, *words: str, stdin: bytes = b"") -> str:
        done = await self.tried(*words, stdin=stdin)
        assert done.code == 0, (words, done)
        return done.out


@pytest.fixture(params=CLIS)
def cli(request: pytest.FixtureRequest, tenant: Tenant) -> Cli:
    return Cli(tenant, cli_of(request.param))


async def test_the_commands_of_a_day(cli: Cli, folder: Path) -> None:
    assert json.loads(await cli("version", "--format", "{{json .Server}}"))["ApiVersion"] == "1.44"
    await cli("network", "create", "net")
    await cli("volume", "create", "data")
    words = ("--name", "box", *LIMITS, "--network", "net", "-v", "data:/d", "--restart", "on-failure:2")
    health = ("--health-cmd", "test -e /d/f", "--health-interval", "1s", "--health-retries", "1000")
    id_ = await cli("run", "-d", *words, *health, IMAGE, "sh", "-c", TALKS)

    assert await cli("ps", "-q", "--no-trunc", "--filter", "health=starting") == id_
    (folder / "f").write_bytes(os.urandom(3_000_000))
    await cli("cp", str(folder / "f"), "box:/d/f")
    await cli("cp", "box:/d/f", str(folder / "back"))
    assert (folder / "back").read_bytes() == (folder / "f").read_bytes()
    await until_async(cli, "healthy", "inspect", "-f", "{{.State.Health.Status}}", "box")

    done = await cli.tried("exec", "-i", "-w", "/d", "-e", "A=b", "box", "sh", "-c", SCRIPT, stdin=b"typed\n")
    assert (done.code, done.out) == (5, "typed\n/d b")
    said = await cli.tried("logs", "--tail", "5", "box")
    assert (said.out, said.err) == ("one", "bad")
    assert (await cli.tried("logs", "--until", "2020-01-01T00:00:00Z", "box")).out == ""
    stamped = (await cli.tried("logs", "-t", "--since", "2020-01-01T00:00:00Z", "box")).out
    assert stamped.endswith("Z one"), stamped
    assert "sleep 0.1" in await cli("top", "box")
    assert json.loads(await cli("stats", "--no-stream", "--format", "{{json .}}", "box"))["Name"] == "box"
    await cli("update", "--memory", "48m", "--memory-swap", "48m", "box")
    await cli("rename", "box", "bx")
    await cli("pause", "bx")
    assert "(Paused)" in await cli("ps", "--format", "{{.Status}}")
    await cli("unpause", "bx")
    assert "net" in await cli("network", "ls", "--format", "{{.Name}}")
    assert "data" in await cli("volume", "ls", "-q")
    await cli("exec", "bx", "touch", "/made")
    changed = await cli("diff", "bx")
    assert "A /made" in changed
    assert "/d/f" not in changed, "a volume is no change of the container"
    assert "Containers" in await cli("system", "df")

    waiting = asyncio.create_task(cli("wait", "bx"))
    await until(lambda: cli.tenant.front.clients > 0)
    await cli("stop", "-t", "20", "bx")
    assert await waiting == "4", "what its handler of the signal wants"
    assert "bye" in await cli("logs", "bx")
    assert await cli("start", "bx") == "bx"
    await cli("restart", "-t", "0", id_[:12])
    await cli("kill", "bx")
    await cli("rm", "-f", "bx")
    assert "No such container: bx" in (await cli.tried("start", "bx")).err
    of_containers = ("--filter", "type=container", "--format", "{{.Action}}")
    wanted = {"create", "start", "rename", "pause", "unpause", "die", "stop", "destroy"}

    async def told() -> bool:
        return wanted <= set((await cli("events", "--since", "0", "--until", "0s", *of_containers)).split())

    await until(told)
    assert "Total reclaimed space" in await cli("system", "prune", "-f", "--volumes")
    await cli("volume", "rm", "-f", "data")


async def until_async(cli: Cli, wanted: str, *words: str) -> None:
    async def seen() -> bool:
        return await cli(*words) == wanted

    await until(seen)


async def test_a_terminal_whose_size_changes_and_which_lets_go(cli: Cli) -> None:
    """``exec -it`` in a window that grows; ``attach`` is left by its keys, and what runs goes on."""
    await cli("run", "-dit", "--name", "box", *LIMITS, IMAGE, "sh")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (17, 93))
    process = await asyncio.create_subprocess_exec(
        cli.program, "attach", "--detach-keys", "ctrl-x", "box",
        stdin=theirs, stdout=theirs, stderr=theirs, env=cli.tenant.env, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""

    async def sees(word: bytes) -> None:
        nonlocal seen
        while word not in seen:
            seen += await asyncio.wait_for(asyncio.to_thread(os.read, ours, 4096), 60)

    try:
        os.write(ours, b"echo $((40+2))\n")
        await sees(b"42\r\n")
        termios.tcsetwinsize(ours, (31, 77))
        process.send_signal(signal.SIGWINCH)  # the terminal is that of no session
        os.write(ours, b'until [ "$(stty size)" = "31 77" ]; do sleep 0.1; done; echo si""zed\n')
        await sees(b"sized\r\n")
        os.write(ours, b"\x18")
        await asyncio.wait_for(process.wait(), 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        os.close(ours)
    assert await cli("inspect", "-f", "{{.State.Running}}", "box") == "true"
