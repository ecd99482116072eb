"""A node as a service: the unit is one that systemd takes, and the node says what systemd wants to hear."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dockage.adapters.system.notify import Notifier
from dockage.cli import systemd, unit
from dockage.cli.client import Client

from .conftest import Call, value
from .homes import DOCKAGE, ON_LOOPBACK

HOMES = ("/home/ada/.dockage", '/srv/a node/100%/$HOME "x"\\y;z')
FAKE = """#!/bin/sh
echo "$*" >>"$SAID"
case "$*" in
  *show*) printf 'ActiveState=%s\\nSubState=running\\nUnitFileState=enabled\\nMainPID=4711\\n' "$STATE"
          printf 'StatusText=2 leases sold, 0 rented\\nNRestarts=1\\nResult=success\\n' ;;
  *"$FAILS"*) echo "Job failed." >&2; exit 1 ;;
esac
"""


# -- the unit ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("system", [True, False])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, home: str, system: bool) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze: install systemd")
    file = tmp_path / "dockage.service"
    file.write_text(unit.text(Path(home), sys.executable, system=system))
    words = ["systemd-analyze", "verify", "--man=no", *([] if system else ["--user"]), str(file)]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=env)
    assert [line for line in done.stderr.splitlines() if "dockage" in line] == []
    assert done.returncode == 0, done.stderr


def test_a_path_is_one_word_and_no_specifier() -> None:
    line = next(x for x in unit.text(Path(HOMES[1]), "/py", system=True).splitlines() if "ExecStart" in x)
    home = '"/srv/a node/100%%/$$HOME \\"x\\"\\\\y;z"'
    assert line == f"ExecStart=/py -P -m dockage.cli.main --home {home} daemon"


def test_nothing_in_the_unit_hides_the_leases_disks_from_docker() -> None:
    """Each of these gives a service mounts of its own (systemd.exec(5))."""
    own = (
        "ProtectSystem",
        "ProtectHome",
        "Private",
        "ReadOnly",
        "Inaccessible",
        "Temporary",
        "ProtectKernel",
    )
    for line in unit.text(Path(HOMES[0]), "/py", system=True).splitlines():
        assert not line.startswith(
            (*own, "ProtectControl", "ProtectProc", "RootDir", "BindPaths", "DynamicUser")
        )


@pytest.mark.parametrize(
    ("home", "name"),
    [
        ("/home/ada/.dockage", "dockage"),
        ("/srv/b", "dockage-b"),
        ("/srv/ä b/", "dockage-b"),
        ("/", "dockage"),
    ],
)
def test_the_units_name_says_which_home(home: str, name: str) -> None:
    assert unit.name_for(Path(home)) == name


# -- the command -------------------------------------------------------------------------------------
@pytest.fixture
def root(tmp_path: Path) -> Path:
    if not shutil.which("systemctl"):
        pytest.skip("no systemctl: install systemd")
    return tmp_path


def test_into_an_image_it_is_written_enabled_and_removed(call: Call, home: Path, root: Path) -> None:
    at = ("--root", str(root), "--name", "dockage-x")
    done = value(call("service", "install", *at, "--json"))
    file = Path(done["file"])
    assert f"{unit.HOME}{home}\n" in file.read_text()
    wanted = root / "etc/systemd/system/multi-user.target.wants/dockage-x.service"
    assert wanted.is_symlink()
    assert value(call("service", "status", *at, "--json"))["file"] == str(file)
    assert call("service", "remove", *at).exit_code == 0
    assert (file.exists(), wanted.is_symlink()) == (False, False)
    again = call("service", "remove", *at)
    assert (again.exit_code, "service.none" in again.stderr) == (1, True)


def test_a_unit_of_another_home_or_program_is_not_overwritten(call: Call, root: Path) -> None:
    at = ("--root", str(root), "--name", "dockage-x")
    file = root / "etc/systemd/system/dockage-x.service"
    file.parent.mkdir(parents=True)
    for text in (f"{unit.HOME}/elsewhere\n", "[Service]\nExecStart=/bin/true\n"):
        file.write_text(text)
        for what in ("install", "remove", "status"):
            done = call("service", what, *at)
            assert (done.exit_code, "service.taken" in done.stderr) == (1, True)
        assert file.read_text() == text


def test_settings_that_no_node_could_start_with_are_refused_first(call: Call, home: Path, root: Path) -> None:
    (home / "config.toml").write_text("[node]\nbinds = 1\n")
    done = call("service", "install", "--root", str(root))
    assert (done.exit_code, "node.bind" in done.stderr) == (1, True)
    assert not list(root.rglob("*.service"))


def test_without_systemd_it_says_what_to_do(call: Call, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(systemd, "BOOTED", root / "nowhere")
    done = call("service", "install")
    assert (done.exit_code, "service.no-systemd" in done.stderr) == (1, True)
    assert "@reboot" in done.stderr


@pytest.fixture
def fake(path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that systemd runs, as far as ``systemctl`` can tell; what it was asked."""
    for name in ("systemctl", "journalctl", "loginctl"):
        (path / name).write_text(FAKE)
        (path / name).chmod(0o755)
    said = path / "said"
    monkeypatch.setattr(systemd, "BOOTED", path)
    monkeypatch.setattr(systemd.os, "geteuid", lambda: 1000)  # whose units lie in a home
    for name, to in (
        ("SAID", str(said)),
        ("STATE", "active"),
        ("FAILS", "nothing"),
        ("XDG_CONFIG_HOME", str(path)),
    ):
        monkeypatch.setenv(name, to)
    return said


def test_install_starts_it_and_remove_stops_it(call: Call, fake: Path, home: Path) -> None:
    done = value(call("service", "install", "--json"))
    assert (done["state"], done["pid"], done["says"]) == ("active", 4711, "2 leases sold, 0 rented")
    name = f"{done['unit']}.service"
    asked = fake.read_text().splitlines()
    assert asked[:3] == ["--user daemon-reload", f"--user enable {name}", f"--user restart {name}"]
    assert "enable-linger" in asked
    assert call("service", "remove").exit_code == 0
    assert f"--user disable --now {name}" in fake.read_text()
    assert not Path(done["file"]).exists()
    assert home.exists()


def test_one_that_does_not_start_shows_its_log(
    call: Call, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "restart")
    done = call("service", "install")
    assert (done.exit_code, "service.not-started" in done.stderr) == (4, True)
    assert "journalctl --user -u dockage-" in done.stderr


def test_a_tenants_unit_cannot_sell(call: Call, fake: Path, home: Path) -> None:
    (home / "config.toml").write_text('[provider]\nenabled = true\nonly_for = ["own"]\n')
    done = call("service", "install")
    assert (done.exit_code, "service.not-root" in done.stderr) == (1, True)
    assert not fake.exists()


# -- what systemd hears ------------------------------------------------------------------------------
def test_it_is_told_over_a_datagram_by_path_or_by_abstract_name(home: Path) -> None:
    for name in (str(home / "notify"), f"@dockage-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(name.replace("@", "\0", 1))
            listener.settimeout(30)
            environ = {
                "NOTIFY_SOCKET": name,
                "WATCHDOG_USEC": "90000000",
                "WATCHDOG_PID": str(os.getpid()),
                "PATH": "/",
            }
            notifier = Notifier.taken_from(environ)
            assert environ == {"PATH": "/"}
            assert (notifier.is_there, notifier.watchdog_sec) == (True, 90.0)
            notifier.tell("READY=1", "STATUS=up")
            assert listener.recv(4096) == b"READY=1\nSTATUS=up"
        notifier.tell("WATCHDOG=1")  # nobody listens any more: no matter


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "-1"}]
)
def test_nobody_is_told_where_nobody_asked(environ: dict[str, str]) -> None:
    notifier = Notifier.taken_from(environ)
    assert (notifier.is_there, notifier.watchdog_sec) == (False, 0.0)
    notifier.tell("READY=1")


def test_a_node_is_ready_when_it_answers_feeds_the_watchdog_and_says_when_it_stops(home: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(home / "notify"))
        listener.settimeout(60)
        env = {**os.environ, "NOTIFY_SOCKET": str(home / "notify"), "WATCHDOG_USEC": "300000"}
        words = [*DOCKAGE, "--home", str(home), "daemon", *ON_LOOPBACK, "--set", "tenant.engine="]
        with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
            try:
                assert listener.recv(4096).startswith(b"READY=1\nSTATUS=0 leases sold, 0 rented")
                assert Client(home).get("status")["home"] == str(home)
                assert all(listener.recv(4096).startswith(b"WATCHDOG=1\n") for _ in range(3))
                node.send_signal(signal.SIGTERM)
                while listener.recv(4096) != b"STOPPING=1":
                    pass
                assert node.wait(60) == 0
            finally:
                node.kill()
