"""Each way to fail has its exit code, its line on stderr, and leaves stdout empty."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from dockage.cli.main import main

from .conftest import Call
from .parts import served


def fails(call: Call, *words: str, code: int, name: str, says: str = "", **more: object) -> None:
    done = call(*words, **more)
    assert (done.exit_code, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(f"({name})")
    assert says in last


def test_no_daemon_is_3(call: Call) -> None:
    for words in (("spend",), ("market",), ("wallet", "send", "x", "1"), ("channels", "close", "--all")):
        fails(call, *words, code=3, name="daemon.not-running", says="dockage daemon --detach")


def test_a_socket_that_nobody_listens_on_is_no_daemon(call: Call, home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home / "control.sock"))
    fails(call, "status", code=3, name="daemon.not-running")


def test_wrong_usage_is_2(call: Call) -> None:
    fails(call, "nonsense", code=2, name="cli.usage")
    fails(call, "market", "--cpus", "many", code=2, name="cli.usage", says="0.5 or 2 is")
    fails(call, "market", "--memory", "5 bananas", code=2, name="cli.usage", says="512M")
    fails(call, "channels", "close", code=2, name="cli.usage")
    fails(call, "wallet", "send", "x", "0", code=2, name="cli.usage")
    fails(call, "provide", "--free", "--price-preset", "fair", code=2, name="cli.usage")


def test_what_the_user_can_mend_is_1(call: Call, home: Path) -> None:
    with served(home):
        fails(call, "earnings", code=1, name="provider.none", says="dockage provide")
        fails(call, "wallet", code=1, name="wallet.none")
        fails(call, "market", "--region", "x" * 400, "--max-price", "9" * 20, code=1, name="label.number")
        fails(call, "channels", "close", "ffff", code=1, name="channel.not-found")
        assert call("why", "nobody").exit_code == 1


def test_a_part_that_does_not_answer_is_4(call: Call, home: Path) -> None:
    head = b"HTTP/1.1 503 Away\r\nContent-Length: %d\r\n\r\n" % len(UNREACHABLE)
    with answering(home, head + UNREACHABLE):
        fails(call, "channels", code=4, name="chain.unreachable", says="no node")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\noh",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"SSH-2.0-nothing of ours\r\n",
        b"",
    ],
)
def test_a_daemon_that_talks_nonsense_is_4(call: Call, home: Path, reply: bytes) -> None:
    with answering(home, reply):
        assert call("spend").exit_code == 4


UNREACHABLE = b'{"code": "chain.unreachable", "message": "no node"}'


@contextmanager
def answering(home: Path, reply: bytes) -> Iterator[None]:
    """One connection to the control socket gets *reply*, whatever it asks."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(home / "control.sock"))
        server.listen()

        def serve() -> None:
            there, _ = server.accept()
            with there:
                there.recv(65536)
                there.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(5)


def test_a_home_that_is_too_deep_for_a_socket_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--home", str(tmp_path / ("x" * 90)), "spend"])
    assert done.exit_code == 1
    assert "home.too-long" in done.stderr


def test_a_home_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(main, ["--home", str(tmp_path / "file" / "home"), "id"])
    assert done.exit_code == 1
    assert "(cli.file)" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_another_users_home_says_so(call: Call, home: Path) -> None:
    with served(home):
        home.chmod(0)
        fails(call, "spend", code=1, name="daemon.foreign")
        home.chmod(0o700)


def shell(command: str, **env: str) -> tuple[int, str]:
    """*command* in a shell where ``$D`` is the program; its exit code and what it said on stderr."""
    program = f"{sys.executable} -m dockage.cli.main"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "D": program, **env},
        timeout=100,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("$D --help | true", 0, ""),
        (
            "$D daemon --help >/dev/full",
            4,
            "error: cannot write: No space left on device (cli.file)\n",
        ),
        ("$D --help >&-", 0, ""),
        ("$D bogus 2>&-", 2, ""),
    ],
)
def test_an_output_that_nobody_takes_is_no_fault_of_ours(command: str, code: int, says: str) -> None:
    assert shell(command) == (code, says)


def test_a_letter_that_the_locale_lacks_costs_the_letter_only(home: Path) -> None:
    words = f"$D --home '{home}' why '\u2588'"
    code, said = shell(words, PYTHONIOENCODING="ascii")
    assert (code, "Traceback" in said) == (3, False)
    code, said = shell(f"$D --home '{home}' completion '\u2588'", PYTHONIOENCODING="ascii")
    assert (code, "Traceback" in said) == (2, False)
