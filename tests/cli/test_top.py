"""``dockage top``: its figures, its picture at any size, its keys, and a real terminal that is given back whole."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.cli import screen
from dockage.cli.containers import use
from dockage.cli.pace import Pace
from dockage.cli.terminal import ENTER, LEAVE
from dockage.cli.top import Look, Row, Watcher, ordered
from dockage.domain.units import GIB, MIB

from .conftest import Call, value
from .parts import FAIR, served

USAGE = {"cpu_ns": 0, "net_in_bytes": 0, "net_out_bytes": 0, "internet_out_bytes": 0, "replica_out_bytes": 0}
TARIFF = {f"{name}_msat": getattr(FAIR, name) for name in FAIR.__struct_fields__}


def lease(name: str, at_ms: int, due: int = 0, **changes: Any) -> dict[str, Any]:
    used = USAGE | {key: changes.pop(key) for key in list(changes) if key in USAGE}
    return {
        "lease": name * 8,
        "deployment": name,
        "provider": "p" * 64,
        "state": "running",
        "running_sec": 60,
        "stated_at_ms": at_ms,
        "usage": used,
        "limits": {"cpu_milli": 500, "memory_bytes": GIB, "disk_bytes": GIB},
        "tariff": TARIFF,
        "memory_bytes": 10 * MIB,
        "disk_bytes": MIB,
        "containers": 1,
        "due_msat": due,
        "msat_hour_max": 9000,
    } | changes


def spend(*leases: dict[str, Any], paid: int = 0) -> dict[str, Any]:
    return {"leases": list(leases), "due_msat": sum(x["due_msat"] for x in leases), "paid_sat": paid}


def paying(sat: int, role: str = "paying", peer: str = "p" * 64) -> dict[str, Any]:
    return {"role": role, "peer": peer, "paid_sat": sat}


def stats(cpu_ns: int, second: int, memory: int = 30 * MIB) -> dict[str, Any]:
    return {
        "read": f"2026-11-01T12:00:{second:02d}.123456789Z",
        "cpu_stats": {"cpu_usage": {"total_usage": cpu_ns}},
        "memory_stats": {"usage": memory + 5, "stats": {"inactive_file": 5}, "limit": 64 * MIB},
        "networks": {"eth0": {"rx_bytes": 10, "tx_bytes": 20}, "eth1": {"rx_bytes": 1, "tx_bytes": 2}},
    }


def listed(name: str, of: str) -> dict[str, Any]:
    return {"Id": name * 64, "Names": [f"/{name}"], "State": "running", "Labels": {"dockage.lease": of}}


# -- figures -----------------------------------------------------------------------------------------
def test_a_pace_is_that_of_the_last_seconds_by_the_others_clock() -> None:
    pace = Pace()
    assert pace.look({"a": (1000, (0, 100))}, 0) == {}
    assert pace.look({"a": (3000, (50, 100))}, 5.0) == {"a": (25.0, 0.0)}, (
        "it came late; it is no slower for that"
    )
    assert pace.look({"a": (3000, (50, 100))}, 9.9) == {"a": (25.0, 0.0)}
    assert pace.look({"a": (3000, (50, 100))}, 10.1) == {"a": (0.0, 0.0)}, "silent"
    assert pace.look({"a": (30_000, (77, 100))}, 11.0) == {"a": (1.0, 0.0)}
    assert pace.look({"a": (500, (0, 0))}, 12.0) == {}, "its clock was set back"
    assert pace.look({}, 13.0) == {}
    assert pace.look({"a": (1000, (9, 9))}, 14.0) == {}, "forgotten meanwhile"


def test_a_lease_shows_what_it_uses_now_and_what_that_costs_an_hour() -> None:
    watcher = Watcher()
    watcher.look(spend(lease("a", 1000)), None, [])
    after = lease(
        "a", 3000, due=2000, cpu_ns=10**9, net_in_bytes=200, net_out_bytes=40, internet_out_bytes=60
    )
    [row] = watcher.look(spend(after), None, []).leases
    assert (row.cpu_cores, row.in_bytes_sec, row.out_bytes_sec) == (0.5, 100.0, 50.0)
    assert (row.msat_hour, row.due_msat) == (3_600_000, 2000)
    assert (row.cpu_cores_limit, row.memory_limit_bytes) == (0.5, GIB)


def test_what_is_paid_covers_the_oldest_leases_of_the_pair_and_each_side_its_own() -> None:
    mine = [lease("a", 1, 1500), lease("b", 1, 1500, state="ended"), lease("c", 1, 1500, provider="q" * 64)]
    sold = {**lease("d", 1, 800), "tenant": "p" * 64}
    del sold["provider"], sold["deployment"]
    money = [paying(1), paying(1), paying(7, peer="q" * 64), paying(5, role="earning")]
    look = Watcher().look(spend(*mine, paid=9), {"leases": [sold], "due_msat": 800, "paid_sat": 5}, money)
    assert [(row.side, row.paid_msat) for row in look.leases] == [
        ("rented", 1500),
        ("rented", 1500),
        ("sold", 800),
    ]
    assert screen.summary(look) == [
        "renting 2 leases, 2 containers: free now, at most 18 sat/h; due 4.5 sat, paid 9 sat",
        "selling 1 lease, 1 container: free now, at most 9 sat/h; due 0.8 sat, paid 5 sat",
    ]


def test_containers_stand_below_their_lease_with_their_share_of_the_price() -> None:
    a, watcher = lease("a", 1000), Watcher()
    watcher.look(spend(a), None, [], [use(listed("x", a["lease"]), stats(0, 1))])
    uses = [use(listed("x", a["lease"]), stats(10**9, 3)), use(listed("y", a["lease"]), stats(0, 3))]
    strangers = [use(listed("z", "elsewhere"), stats(0, 3))]
    look = watcher.look(spend(a), None, [], uses + strangers)
    [x, y] = look.containers
    assert (x.cpu_cores, x.memory_bytes, x.memory_limit_bytes) == (0.5, 30 * MIB, 64 * MIB)
    assert x.msat_hour == FAIR.cpu_hour // 2 + FAIR.memory_gib_hour * 30 // 1024
    assert y.msat_hour is y.cpu_cores is None, "one look is no pace"
    assert [row.name for row in ordered(look, "c")] == ["a", "x", "y"]
    assert [row.name for row in ordered(look, "c", reverse=True)] == ["a", "y", "x"]
    assert [row.name for row in ordered(look, "c", containers=False)] == ["a"]
    assert json.loads(json.dumps(look.value(5)))["containers"][0]["container"] == "x" * 64


# -- the picture -------------------------------------------------------------------------------------
def busy(count: int) -> Look:
    leases = [lease(f"n{n:02d}", 1000, due=n, memory_bytes=n * MIB) for n in range(count)]
    uses = [use(listed(f"c{n}", leases[n]["lease"]), stats(0, 1)) for n in range(min(3, count))]
    return Watcher().look(spend(*leases), None, [], uses)


views = st.builds(
    screen.View,
    sort=st.sampled_from(list("cmdnpbt")),
    reverse=st.booleans(),
    containers=st.booleans(),
    first=st.integers(0, 100),
    help=st.booleans(),
)


@settings(deadline=None)
@given(st.integers(0, 30), views, st.integers(1, 200), st.integers(1, 60), st.text(max_size=200))
def test_a_frame_fits_a_terminal_of_any_size(
    count: int, view: screen.View, w: int, h: int, trouble: str
) -> None:
    frame = screen.frame(busy(count), view, w, h, trouble)
    assert len(frame.lines) <= h
    assert all(len(line) <= w and line.isprintable() for line in frame.lines)


def test_a_narrow_terminal_keeps_what_matters_and_scrolling_stops_at_the_ends() -> None:
    look = busy(30)
    wide, narrow = (screen.table(look.leases, width)[0][0].split() for width in (None, 40))
    assert wide[:5] == ["NAME", "LEASE", "SIDE", "PEER", "STATE"]
    assert narrow == ["NAME", "CPU", "MEMORY", "NOW"]
    frame = screen.frame(look, screen.View(sort="m", containers=False, first=999), 80, 10)
    assert frame.lines[-2].startswith("n00")
    assert "24-30 of 30" in frame.lines[-1]
    assert frame.view.first == 23
    assert screen.frame(look, frame.view._replace(first=0), 80, 10).lines[2].startswith("n29")


def test_a_name_cannot_write_to_the_terminal() -> None:
    evil = lease("a", 1, deployment="x\x1b[2J\x07")
    assert screen.table(Watcher().look(spend(evil), None, []).leases)[0][1].startswith("x?[2J?")


def test_keys() -> None:
    view = screen.View()
    assert screen.pressed(view, "q", 5) is None
    assert screen.pressed(view, "m", 5) == view._replace(sort="m")
    assert screen.pressed(view, "right", 5) == view._replace(sort="b")
    assert screen.pressed(screen.View(sort="c"), "left", 5) == view._replace(sort="t")
    assert screen.pressed(view, "pagedown", 5) == view._replace(first=5)
    assert screen.pressed(view, "up", 5) == view
    assert screen.pressed(view, "x", 5) == view
    helped = screen.pressed(view, "?", 5)
    assert helped == view._replace(help=True)
    assert screen.pressed(helped, "escape", 5) == view


def top_at(home: Path) -> list[str]:
    return [sys.executable, "-m", "dockage.cli.main", "--home", str(home), "top"]


# -- without a terminal ------------------------------------------------------------------------------
@pytest.mark.usefixtures("node")
def test_into_a_pipe_it_is_shown_once(call: Call) -> None:
    head, *rows, _, renting, selling = call("top").stdout.splitlines()
    assert head.split()[:5] == ["NAME", "LEASE", "SIDE", "PEER", "STATE"]
    assert [row.split()[:5] for row in rows] == [
        ["shop", "11111111", "rented", "8a2f1a73", "running"],
        ["33333333", "33333333", "sold", "faa8e185", "running"],
    ]
    assert renting.startswith("renting 1 lease, 2 containers: ")
    assert selling.startswith("selling 1 lease, 2 containers: ")


@pytest.mark.usefixtures("node")
def test_json_once_has_the_documented_keys(call: Call) -> None:
    answer = value(call("top", "--once", "--json"))
    assert answer.keys() == {"at_ms", "leases", "containers", "spent", "earned"}
    assert [row["side"] for row in answer["leases"]] == ["rented", "sold"]


def test_json_is_a_line_a_second_until_ctrl_c(home: Path) -> None:
    with served(home):
        with subprocess.Popen([*top_at(home), "--json"], stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            lines = [json.loads(running.stdout.readline()) for _ in range(2)]
            running.send_signal(signal.SIGINT)
            assert running.wait(10) == 0
    assert lines[0]["at_ms"] < lines[1]["at_ms"]


def test_the_page_on_accounts_names_every_key() -> None:
    page = (Path(__file__).resolve().parent.parent.parent / "docs/reference/accounts.md").read_text()
    assert [field for field in Row._fields if f"`{field}`" not in page] == []


# -- on a terminal -----------------------------------------------------------------------------------
class Tty:
    """``dockage top`` on a pseudo-terminal."""

    def __init__(self, words: Sequence[str]) -> None:
        self.master, self.slave = pty.openpty()
        self.size(120, 20)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            words,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.shown = ""

    def size(self, width: int, height: int) -> None:
        ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def until(self, text: str, seconds: float = 20) -> str:
        """What it has shown since the last call, up to and with *text*."""
        end = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.shown[-2000:]!r}"
            self.shown += os.read(self.master, 65_536).decode()
        seen, _, self.shown = self.shown.partition(text)
        return seen + text

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before


@contextmanager
def on_terminal(home: Path, *words: str) -> Iterator[Tty]:
    with served(home):
        tty = Tty(words or top_at(home))
        try:
            tty.until(ENTER)
            tty.until("by price")
            yield tty
        finally:
            tty.process.kill()
            tty.process.wait(10)
            os.close(tty.master)
            os.close(tty.slave)


def test_the_keys_work_on_a_real_terminal_and_q_gives_it_back(home: Path) -> None:
    with on_terminal(home) as tty:
        assert not tty.is_as_before(), "keys come without Enter"
        tty.press("m")
        tty.until("by memory")
        tty.press("\x1b[C")
        tty.until("by disk")
        tty.press("h")
        tty.until("this help")
        tty.press("h")
        tty.until("by disk")
        tty.size(40, 6)
        os.kill(tty.process.pid, signal.SIGWINCH)
        frames = [tty.until("\x1b[J").split("\r\n") for _ in range(3)]
        assert len(frames[-1]) == 6
        assert max(map(len, frames[-1])) < 60, "40 and the codes for the head"
        tty.press("q")
        tty.until(LEAVE)
        assert tty.process.wait(10) == 0
        assert tty.is_as_before()


@pytest.mark.parametrize(("how", "code"), [("\x03", 0), (signal.SIGTERM, 143)])
def test_ctrl_c_and_a_signal_give_the_terminal_back(home: Path, how: Any, code: int) -> None:
    with on_terminal(home) as tty:
        if isinstance(how, str):
            tty.press(how)
        else:
            tty.process.send_signal(how)
        tty.until(LEAVE)
        assert tty.process.wait(10) == code
        assert tty.is_as_before()


def test_ctrl_z_gives_it_back_for_a_while(home: Path) -> None:
    """Under a shell with job control: without one the kernel stops nobody."""
    top = shlex.join(top_at(home))
    job = f"set -m; {top}; echo is stopped; stty -a | grep -ow icanon; fg; echo ended with $?"
    with on_terminal(home, "bash", "-c", job) as tty:
        tty.press("\x1a")
        tty.until(LEAVE)
        tty.until("is stopped")
        tty.until("icanon")
        tty.until(ENTER)
        tty.until("by price")
        tty.press("q")
        tty.until(LEAVE)
        tty.until("ended with 0")
