"""The daemon as a real process: started in the background, found by its lock, stopped."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dockage.cli import process
from dockage.cli.errors import NotRunning

from .conftest import Call
from .parts import served

NODE = ("--bind", "127.0.0.1:0", "--set", "tenant.engine=", "--set", "node.stamp_bits=4")
WITH_CTRL_C = ("env", "--default-signal=INT")
"""As from a terminal: what a script runs in the background ignores Ctrl-C, and so would all our children."""
DOCKAGE = (sys.executable, "-m", "dockage.cli.main")


@pytest.fixture
def stopping(home: Path) -> Iterator[None]:
    yield
    with suppress(NotRunning):
        process.stop(home)


def ran(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as from a shell: what it starts in the background is not our child."""
    return subprocess.run(
        [*DOCKAGE, "--home", str(home), *words], capture_output=True, text=True, timeout=100
    )


@pytest.mark.usefixtures("stopping")
def test_the_life_of_a_daemon(call: Call, home: Path) -> None:
    first = ran(home, "daemon", "--detach", *NODE, "--json")
    assert "for this run only: node.bind, node.stamp_bits, tenant.engine; --save" in first.stderr
    up = json.loads(first.stdout)
    assert up["node"] == call("id").stdout.strip()
    assert process.pid_of(home) is not None
    assert call("spend").exit_code == 0

    again = call("daemon", "--detach", *NODE)
    assert (again.exit_code, "home.in-use" in again.stderr) == (1, True)
    sell = call("provide")
    assert (sell.exit_code, "dockage daemon --stop" in sell.stderr) == (1, True)

    assert json.loads(call("daemon", "--stop", "--json").stdout)["stopped"] > 0
    assert process.pid_of(home) is None
    assert not (home / "control.sock").exists()
    assert call("daemon", "--stop").exit_code == 3
    assert (home / "daemon.log").stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("stopping")
def test_a_daemon_that_cannot_start_shows_the_end_of_its_log(home: Path) -> None:
    (home / "daemon.log").write_text("something of yesterday\n")
    done = ran(home, "daemon", "--detach", "--bind", "192.0.2.1:4711", *NODE[2:])
    assert done.returncode == 4
    assert "link.bind" in done.stderr
    assert "yesterday" not in done.stderr


def test_a_wrong_setting_is_refused_before_anything_starts(call: Call, home: Path) -> None:
    for words in (("--seed", "nobody"), ("--set", "node.bind"), ("--set", "node.colour=red")):
        done = call("daemon", "--detach", *words)
        assert done.exit_code == 1
        assert "(config." in done.stderr
    assert not (home / "daemon.log").exists()


def test_nothing_is_saved_that_no_node_could_start_with(call: Call, home: Path) -> None:
    (home / "config.toml").write_text("# mine\n")
    assert call("daemon", "--detach", "--save", "--set", "node.stamp_bits=99").exit_code == 1
    assert (home / "config.toml").read_text() == "# mine\n"


def test_a_stale_pid_file_is_nobody(call: Call, home: Path) -> None:
    """After a power cut the number may be anybody's: no signal is sent."""
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (home / "daemon.pid").write_text(f"{bystander.pid}\n")
        assert call("daemon", "--stop").exit_code == 3
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n")


def test_who_holds_the_lock_is_the_daemon(home: Path) -> None:
    with (home / "daemon.pid").open("w+") as file:
        file.write("4711\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert process.pid_of(home) == 4711
    assert process.pid_of(home) is None


def test_in_the_foreground_ctrl_c_ends_it_in_order(home: Path) -> None:
    with started(home, "daemon", *NODE, "--json") as child:
        assert json.loads(line(child))["home"] == str(home)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0
    assert process.pid_of(home) is None


def test_ctrl_c_leaves_a_watch_without_an_error(home: Path) -> None:
    with served(home), started(home, "spend", "--watch", "--json") as child:
        assert [json.loads(line(child))["running"] for _ in range(2)] == [1, 1]
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
        assert (child.returncode, said) == (0, b"")


@contextmanager
def started(home: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*WITH_CTRL_C, *DOCKAGE, "--home", str(home), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def line(of: subprocess.Popen[bytes]) -> bytes:
    assert of.stdout is not None
    return of.stdout.readline()


def test_ctrl_c_gives_the_terminal_back(home: Path) -> None:
    with served(home):
        code, shown = in_a_terminal("--home", str(home), "spend", "--watch")
    assert code == 0
    assert b"shop" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is shown again


def in_a_terminal(*words: str) -> tuple[int, bytes]:
    """Run it on a terminal of its own, press Ctrl-C once it has drawn twice; its exit code and all it wrote."""
    ours, its = os.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    command = [*WITH_CTRL_C, "setsid", "--ctty", *DOCKAGE, *words]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=env) as child:
        try:
            os.close(its)
            shown = b""
            while shown.count(b"shop") < 2:
                shown += piece(ours)
            os.write(ours, b"\x03")
            while more := piece(ours):
                shown += more
            return child.wait(30), shown
        finally:
            child.kill()
            os.close(ours)


def piece(terminal: int) -> bytes:
    """What is written next; nothing once the other end is closed."""
    assert select.select([terminal], [], [], 60)[0], "nothing was written for a minute"
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says it
        return b""


def test_a_closed_pipe_is_no_error(home: Path) -> None:
    with served(home), started(home, "spend", "--watch", "--json") as child:
        line(child)
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.wait(30) == 0
        assert child.stderr.read() == b""
