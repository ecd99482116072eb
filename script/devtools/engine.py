"""One private Docker engine: its own folders, socket, bridge, addresses and cgroup parent.

It is thrown away as a whole when it stops: containers, networks, images, mounts, firewall rules. Every
part is found by the engine's own folder or bridge, so an engine that died is cleaned up just the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from devtools import bridge, rules
from devtools.shell import Failed, run, wait_until, works

START_SECONDS = 60
STOP_SECONDS = 30


CURRENT = "current"
"""An engine of this name, or ``current-...``, is of the newest version that script/setup could get; every other is
the machine's own."""


class Engine:
    def __init__(self, engines: Path, name: str, programs: Path) -> None:
        """*programs*: the folder of a current engine's programs."""
        self.name = name
        self.programs = str(programs) if name.partition("-")[0] == CURRENT else ""
        self.folder = engines / name
        self.id = hashlib.sha256(bytes(self.folder)).hexdigest()[:8]
        # The path of a unix socket is limited to 107 bytes, and containerd adds its own to ours.
        self.short = self.folder if len(bytes(self.folder)) <= 60 else Path("/run/dockage-engines") / self.id
        self.socket = self.short / "docker.sock"
        self.exec_root = self.short / "exec"
        self.log = self.folder / "dockerd.log"
        self.pid_file = self.folder / "dockerd.pid"
        self.slot_file = self.folder / "slot"

    # -- what it is now ------------------------------------------------------------------------------
    def pid(self) -> int | None:
        """The running daemon's pid; a number that meanwhile belongs to another program is not it."""
        try:
            pid = int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if str(self.exec_root) in command_line(pid) else None

    def answers(self) -> bool:
        return self.pid() is not None and works(*self.docker("version"), seconds=5)

    def bridge(self) -> bridge.Bridge | None:
        """None also when it was claimed in another network namespace: there it is somebody else's name."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            slot, namespace = self.slot_file.read_text().split()
            return bridge.Bridge(int(slot)) if namespace == network_namespace() else None
        return None

    @property
    def cgroup(self) -> str:
        return f"dockage-engine-{self.id}"

    def docker(self, *arguments: str) -> list[str]:
        return ["docker", "--host", f"unix://{self.socket}", *arguments]

    # -- start ---------------------------------------------------------------------------------------
    def start(self) -> None:
        if self.answers():
            return
        self.stop()  # what a crash may have left
        self.folder.mkdir(parents=True)
        self.short.mkdir(parents=True, exist_ok=True)
        before = rules.snapshot()
        mine = bridge.claim()
        self.slot_file.write_text(f"{mine.slot} {network_namespace()}")
        self.launch(mine)
        if not wait_until(self.answers, START_SECONDS):
            tail = self.log.read_text(errors="replace")[-2000:]
            self.stop()
            raise Failed(
                f"the engine {self.name} did not answer within {START_SECONDS} s. Its last words:\n{tail}"
            )
        rules.put_back(before, rules.snapshot())

    def launch(self, mine: bridge.Bridge) -> None:
        with self.log.open("wb") as log:
            subprocess.Popen(
                [*self.daemon(mine)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                env={**os.environ, "PATH": self.path, "DOCKER_RAMDISK": "", "TMPDIR": str(self.folder)},
            )

    @property
    def path(self) -> str:
        """dockerd finds its containerd, and that its shim, where it looks for programs first."""
        return ":".join(filter(None, [self.programs, os.environ["PATH"]]))

    def daemon(self, mine: bridge.Bridge) -> list[str]:
        config = self.folder / "daemon.json"
        config.write_text("{}\n")  # never the machine's own
        return [
            shutil.which("dockerd", path=self.path) or "dockerd",
            f"--config-file={config}",
            f"--data-root={self.folder / 'data'}",
            f"--exec-root={self.exec_root}",
            f"--pidfile={self.pid_file}",
            f"--host=unix://{self.socket}",
            f"--bridge={mine.name}",
            f"--default-address-pool=base={mine.pool},size=24",
            f"--cgroup-parent=/{self.cgroup}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--shutdown-timeout=5",
        ]

    # -- stop ----------------------------------------------------------------------------------------
    def stop(self) -> None:
        mine = self.bridge()
        networks = self.empty() if self.answers() else []
        self.end_daemon()
        self.end_leftovers()
        for mount in self.mounts():
            works("umount", "--lazy", mount)
        if mine is not None:
            bridge.release(mine, networks)
        remove_cgroups(self.cgroup)
        for folder in {self.folder, self.short}:
            shutil.rmtree(folder, ignore_errors=True)
        if self.folder.exists():
            raise Failed(f"the engine {self.name} is stopped, but {self.folder} cannot be removed")

    def empty(self) -> list[str]:
        """Remove all containers and networks; the interfaces of networks that would not go."""
        containers = run(*self.docker("ps", "--all", "--quiet"), check=False).split()
        if containers:
            works(*self.docker("rm", "--force", "--volumes", *containers))
        networks = run(
            *self.docker("network", "ls", "--quiet", "--filter", "type=custom"), check=False
        ).split()
        names = [self.interface(network) for network in networks]
        if networks:
            works(*self.docker("network", "rm", *networks))
        return [name for name in names if name]

    def interface(self, network: str) -> str:
        found = json.loads(run(*self.docker("network", "inspect", network), check=False) or "[]")
        if not found or found[0]["Driver"] != "bridge":
            return ""
        return str(found[0]["Options"].get("com.docker.network.bridge.name", f"br-{found[0]['Id'][:12]}"))

    def end_daemon(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        send(pid, signal.SIGTERM)
        if not wait_until(lambda: self.pid() is None, STOP_SECONDS):
            send(pid, signal.SIGKILL)
            wait_until(lambda: self.pid() is None, 5)

    def end_leftovers(self) -> None:
        """containerd and the shims name our exec root; what a dead shim kept running is its child."""
        for pid in list(self.processes()):
            for child in descendants(pid):
                send(child, signal.SIGKILL)
            send(pid, signal.SIGKILL)
        if not wait_until(lambda: not list(self.processes()), 10):
            raise Failed(f"processes of the engine {self.name} do not end: {list(self.processes())}")

    def processes(self) -> Iterator[int]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and str(self.exec_root) in command_line(int(entry.name)):
                yield int(entry.name)

    def mounts(self) -> list[str]:
        """Deepest first."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in reversed(lines)]
        mine = (self.folder, self.short)
        return [str(point) for point in points if any(point.is_relative_to(folder) for folder in mine)]


def network_namespace() -> str:
    return os.readlink("/proc/self/ns/net")


def remove_cgroups(name: str) -> None:
    """Empty ones only: rmdir refuses a cgroup in which anything lives."""
    for top in Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup").glob(name):
        for parent in top:
            for folder, _, _ in os.walk(parent, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Deepest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [*descendants(child), child]
    return found


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
