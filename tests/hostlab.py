"""A private Docker engine in its own network namespace, so that ``iptables-save`` there shows our rules only.

The tests' thread enters the namespace too (``inside``): the host under test must see the same network as its engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from dockage.adapters.host.guard import CANDIDATES
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import LEASE_LABEL
from dockage.wire.splice import SocketStream

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "dockage/base:bookworm"
SESSION = os.urandom(15)
"""cgroups are not in a namespace of ours: lease ids must differ from those of a suite that runs beside us."""
OURS = f"{tempfile.gettempdir()}/dkh-home"
"""Loop devices are not in a namespace either."""
CLONE_NEWNET = 0x40000000
GO = {name: os.environ[name] for name in ("GOGC", "GOMAXPROCS") if name in os.environ}
"""How script/test wants Go programs to run, for environments that a test makes out of nothing."""


def run(*argv: str, text: str = "", check: bool = True) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


def base_image() -> Path:
    """Made by script/images from Debian's busybox."""
    dev = Path(os.environ.get("DOCKAGE_DEV") or ROOT / ".dev")
    path = (ROOT / dev) / "images" / "base.tar"
    assert path.exists(), f"{path} is missing: run script/images build"
    return path


async def stream_pair() -> tuple[SocketStream, SocketStream]:
    left, right = socket.socketpair()
    return (
        SocketStream(*await asyncio.open_connection(sock=left)),
        SocketStream(*await asyncio.open_connection(sock=right)),
    )


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(400):
        if await check():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come true within 20 s")


async def listening(lab: Lab, container: str, port: int = 7) -> None:
    """Looked at from outside: an exec for each look costs as much as a container."""
    pid = lab.docker("inspect", "-f", "{{.State.Pid}}", container)

    async def listens() -> bool:
        return f":{port:04X} " in sockets_of(pid)

    await until(listens)


def sockets_of(pid: str) -> str:
    return "".join(table.read_text() for table in Path("/proc", pid, "net").glob("tcp*"))


CURRENT = Path(os.environ.get("DOCKAGE_DEV") or ROOT / ".dev") / "current-engine"
"""The programs of an engine of 28 or newer, where script/setup put them."""
CONTAINERD = {"features": {"containerd-snapshotter": True}}


class Lab:
    def __init__(self, suffix: str = "", programs: Path | None = None, config: object = None) -> None:
        """*programs*: of another engine than the machine's own."""
        self.name = f"dkh{os.getpid()}{suffix}"
        self._config = config or {}
        self._path = ":".join(
            [*([str(ROOT / programs)] if programs else []), os.environ["PATH"], "/usr/sbin"]
        )
        self.folder = Path(tempfile.mkdtemp(prefix="dkh-"))
        self.socket = self.folder / "docker.sock"
        self._daemon: subprocess.Popen[bytes] | None = None

    # -- the engine --------------------------------------------------------------------------------
    def open(self) -> None:
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        self.start_engine()
        run("docker", "-H", f"unix://{self.socket}", "load", "-i", str(base_image()))

    def start_engine(self) -> None:
        (self.folder / "daemon.json").write_text(json.dumps(self._config))
        dockerd = shutil.which("dockerd", path=self._path) or "dockerd"
        command = [
            "nsenter", f"--net=/var/run/netns/{self.name}", dockerd, f"--config-file={self.folder}/daemon.json",
            f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid",
            f"--host=unix://{self.socket}", "--bip=172.31.0.1/24", "--shutdown-timeout=3",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            env = {**os.environ, "PATH": self._path, "TMPDIR": str(self.folder), "DOCKER_RAMDISK": ""}
            self._daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        for _ in range(300):
            if (
                subprocess.run(
                    ["docker", "-H", f"unix://{self.socket}", "version"], capture_output=True
                ).returncode
                == 0
            ):
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def stop_engine(self) -> None:
        daemon = self._daemon
        if daemon is None:
            return
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        self._daemon = None

    def close(self) -> None:
        self.stop_engine()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(str(self.folder)):
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
        run("ip", "netns", "del", self.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, suffix: str = "", programs: Path | None = None) -> Iterator[Lab]:
        """*suffix*: another suite of the same run has a laboratory, too."""
        lab = cls(suffix, programs)
        try:
            lab.open()
            yield lab
        finally:
            lab.close()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        libc = ctypes.CDLL(None, use_errno=True)
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/var/run/netns/{self.name}", os.O_RDONLY)
        try:
            assert libc.setns(there, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            yield
        finally:
            assert libc.setns(here, CLONE_NEWNET) == 0
            os.close(here)
            os.close(there)

    # -- containers as the Engine API filter would make them ---------------------------------------
    def docker(self, *argv: str, text: str = "", check: bool = True) -> str:
        return run("docker", "-H", f"unix://{self.socket}", *argv, text=text, check=check)

    def docker_says(self, *argv: str) -> str:
        """The words of a refusal."""
        command = ("docker", "-H", f"unix://{self.socket}", *argv)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0, f"{argv} was not refused"
        return done.stderr

    def run(self, lease: LeaseId, *argv: str, check: bool = True) -> str:
        """``docker run`` in the lease; *argv* may begin with more options, then image and command."""
        return self.docker("run", *self._place(lease, argv), *argv, check=check)

    def create(self, lease: LeaseId, *argv: str) -> str:
        return self.docker("create", *self._place(lease, argv), *argv)

    def _place(self, lease: LeaseId, argv: tuple[str, ...]) -> list[str]:
        place = ["--label", f"{LEASE_LABEL}={lease.hex()}", "--cgroup-parent", f"/dockage/{lease.hex()}"]
        return place if "--network" in argv else [*place, "--network", self.network(lease)]

    def network(self, lease: LeaseId) -> str:
        """The id of its default one: by its name none can be joined."""
        ours = ("--filter", f"label={LEASE_LABEL}={lease.hex()}")
        return self.docker("network", "ls", "--quiet", "--no-trunc", *ours).split()[0]

    def address(self, container: str) -> str:
        [found] = json.loads(self.docker("inspect", container))
        return str(next(iter(found["NetworkSettings"]["Networks"].values()))["IPAddress"])

    def traces(self) -> dict[str, list[str]]:
        """Everything a lease could leave behind."""
        root = Path("/sys/fs/cgroup")
        groups = [str(p) for pattern in ("*/dockage/*", "dockage/*") for p in root.glob(pattern)]
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        tools = ("iptables-save", "ip6tables-save")
        lines = [line.split(" [")[0] for tool in tools for line in run(tool).splitlines()]
        # A table that is used for the first time is there afterwards, empty, with the kernel's own chains.
        rules = [
            x for x in lines if x.startswith(("-A", ":")) and not (x[0] == ":" and x.endswith(" ACCEPT"))
        ]
        return {
            "guards": [str(p) for f in CANDIDATES for p in (f / "dockage-leases").glob(f"*{SESSION.hex()}")],
            "groups": [group for group in groups if group.endswith(SESSION.hex())],
            "mounts": sorted(m for m in mounts if "/dkh-home" in m or m.startswith(str(self.folder))),
            "rules": sorted(rules),
            "networks": sorted(self.docker("network", "ls", "--format", "{{.Name}}").splitlines()),
            "containers": self.docker("ps", "-aq").split(),
            "volumes": self.docker("volume", "ls", "-q").split(),
            "images": sorted(
                self.docker("images", "-a", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
            ),
            "loops": [line for line in run("losetup", "-a").splitlines() if OURS in line],
            "links": sorted(links()),
        }


def links() -> list[str]:
    found = json.loads(run("ip", "-json", "link", "show") or "[]")
    return [link["ifname"] for link in found if not link["ifname"].startswith("veth")]


ENDING = ("containers", "mounts")
"""``docker run --rm`` of an earlier test returns before the engine has cleaned up: then there is less than before."""


def changes(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """One line for each thing that is more or less than before: empty is what we want."""
    lines = []
    for kind in before:
        lines += [f"left over {kind}: {each}" for each in after[kind] if each not in before[kind]]
        if kind not in ENDING:
            lines += [f"missing {kind}: {each}" for each in before[kind] if each not in after[kind]]
    return lines
