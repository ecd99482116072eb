"""What the meter says beside what was really used, and what it costs; docker stats and cAdvisor in the same run.

    script/bench meter [--json FILE] [--rounds N] [--seconds N] [--containers N]

cpu_error           share by which the bill differs from the CPU time that the work itself tells (the kernel's count
                    of its process, ns), over leases whose daemon is killed (SIGKILL), whose clock steps, whose
                    containers are restarted and removed; cpu_lost: what was worked and never billed
bytes_error         the same for payload through the tunnel, and for what one replica sent to another (IP layer,
                    truth from the interface's own counters)
mem_error,          byte-seconds billed beside a look ten times a second; a fifth more or less every ten seconds
disk_error
core_per_container  share of a core that the provider's daemon takes for each container: read, billed, journalled,
                    once a second
docker_stats_core_per_container   the same of the engine while `docker stats` looks at them
docker_stats_cpu_error, cadvisor_cpu_error   what a look at each container once a second misses of short ones, as those
                    two do it; missed_by_us: what the bill misses of the same work
start_up_ms         the engine's own work in the lease at each start of a container, which is billed

The daemon is the real meter, mind, journal and machine in a process of its own; its tenants pay nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks")]

from meter_daemon import play  # noqa: E402

from dockage.adapters.host import elastic, names  # noqa: E402
from dockage.adapters.host.cgroup import detect  # noqa: E402
from dockage.domain.identity import LeaseId  # noqa: E402
from dockage.domain.units import MIB  # noqa: E402
from dockage.ports.hosting import LEASE_LABEL  # noqa: E402
from dockage.wire.engine import BlockingEngine  # noqa: E402

IMAGE = "dockage/base:bookworm"
TICKS = os.sysconf("SC_CLK_TCK")
ETHERNET = 14
"""Bytes of a frame's head, which the interface counts and IP does not."""
STEPS = 400_000
"""Of the shell's loop: about a second of work."""
WORKER = """
while read -r what count; do
  case $what in
    burn) i=0; while [ $i -lt $count ]; do i=$((i+1)); done;;
    hold) dd if=/dev/zero of=/dev/shm/$count bs=1M count=$count 2>/dev/null;;
    free) rm /dev/shm/$count;;
    write) dd if=/dev/zero of=/$count bs=1M count=$count 2>/dev/null; sync;;
    delete) rm /$count;;
  esac
  echo done; read -r tell; read -r ns rest </proc/self/schedstat; echo $ns
done
"""
SHORT = f"i=0; while [ $i -lt {STEPS // 4} ]; do i=$((i+1)); done; read -r ns rest </proc/self/schedstat; echo $ns"


# -- the daemon, from outside ------------------------------------------------------------------------------
class Daemon:
    """It ends, and takes its leases with it, when nobody speaks to it any more."""

    def __init__(self, engine: str, home: Path) -> None:
        self._told = json.dumps({"engine": engine, "home": str(home)})
        self.home, self._lock = home, threading.RLock()
        self.start()

    def start(self) -> None:
        command = [sys.executable, __file__, "--play", self._told]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("ready")

    def ask(self, *words: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self._lock:
            print(*words, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        with self._lock:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.start()

    def billed(self, lease: str) -> dict[str, int]:
        """The lease's usage after one more reading."""
        return dict(self.ask("usage", lease))

    def core(self, seconds: float) -> float:
        before = cpu_seconds(self.process.pid)
        time.sleep(seconds)
        return (cpu_seconds(self.process.pid) - before) / seconds

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(120)


class Bench:
    def __init__(self, engine: str, daemon: Daemon) -> None:
        self.engine, self.daemon = engine, daemon

    def docker(self, *argv: str) -> str:
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.engine}", *argv], capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            sys.exit(f"docker {' '.join(argv)[:200]}: {done.stderr}")
        return done.stdout.strip()

    def lease(self) -> str:
        lease = secrets.token_hex(16)
        self.daemon.ask("open", lease)
        return lease

    def run(self, lease: str, *argv: str) -> str:
        """As the gate does it."""
        container = self.create(lease, *argv)
        self.docker("start", container)
        return container

    def create(self, lease: str, *argv: str) -> str:
        place = ["--label", f"{LEASE_LABEL}={lease}", "--cgroup-parent", f"/dockage/{lease}"]
        network = self.docker(
            "network", "inspect", "-f", "{{.Id}}", names.network(LeaseId(bytes.fromhex(lease)))
        )
        container = self.docker("create", *place, "--network", network, *argv)
        self.daemon.ask("enclose", lease, container)
        return container

    @contextlib.contextmanager
    def worker(self, lease: str) -> Iterator[Worker]:
        container = self.create(lease, "-i", IMAGE, "sh", "-c", WORKER)
        worker = Worker(self.engine, container)
        try:
            yield worker
        finally:
            self.docker("rm", "-f", container)
            worker.process.wait()


class Worker:
    """A process in a container that does what it is told, and knows how long it was on a core."""

    def __init__(self, engine: str, container: str) -> None:
        self.container, pipe = container, subprocess.PIPE
        command = ["docker", "-H", f"unix://{engine}", "start", "-ai", container]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.do("burn", 0)

    def do(self, what: str, count: int) -> int:
        """ns of its whole life so far; asked for after a sleep, when the kernel has counted to the end."""
        self._say(f"{what} {count}")
        assert self._hear() == "done"
        time.sleep(0.05)
        self._say("tell")
        return int(self._hear())

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def cpu_seconds(pid: int) -> float:
    """Of its tools, too, that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICKS


# -- processor -----------------------------------------------------------------------------------------------
def cpu(bench: Bench, rounds: int) -> dict[str, float]:
    """Work goes on while the daemon is killed, and while its clock steps an hour forth and back; between two rounds
    the container is removed and another one made. Start-up is real work, but the work cannot tell it: it lies
    between what is compared."""
    lease, worked, billed, lost = bench.lease(), 0, 0, 0
    before = bench.daemon.billed(lease)["cpu_ns"]
    for n in range(rounds):
        with bench.worker(lease) as worker:
            started, opened = worker.do("burn", 0), bench.daemon.billed(lease)["cpu_ns"]
            disturber = threading.Timer(0.4, disturb, [bench.daemon, n])
            disturber.start()
            told = worker.do("burn", STEPS) - started
            disturber.join()
            closed = bench.daemon.billed(lease)["cpu_ns"]
            worked, billed = worked + told, billed + closed - opened
            lost += max(0, told - (closed - opened) - 1_000_000)
        whole = bench.daemon.billed(lease)["cpu_ns"] - before
        lost += max(0, worked - whole)
    return {"cpu_error": abs(billed - worked) / worked, "cpu_lost": lost / worked}


def disturb(daemon: Daemon, n: int) -> None:
    if n % 3 == 2:
        daemon.ask("step", str(3600 if n % 2 else -3600))
    else:
        daemon.kill()


def short_work(bench: Bench, rounds: int) -> dict[str, float]:
    """Containers of a third of a second with ``--rm``: what a look once a second sees of them."""
    lease, worked = bench.lease(), 0
    before = bench.daemon.billed(lease)["cpu_ns"]
    with Looker(bench.engine, lease) as looker:
        for _ in range(2 * rounds):
            container = bench.create(lease, "--rm", IMAGE, "sh", "-c", SHORT)
            worked += int(bench.docker("start", "-a", container))
    billed = bench.daemon.billed(lease)["cpu_ns"] - before
    start_ups = billed - worked
    return {
        "docker_stats_cpu_error": 1 - sum(looker.stats.values()) / billed,
        "cadvisor_cpu_error": 1 - sum(looker.leaves.values()) / billed,
        "missed_by_us": max(0, -start_ups) / worked,
        "start_up_ms": start_ups / (2 * rounds) / 1e6,
    }


class Looker:
    """Once a second at each container there is, the way docker stats (the engine's API) and cAdvisor (its cgroup)
    do it; the last seen value of each counts."""

    def __init__(self, engine: str, lease: str) -> None:
        self._engine, self._lease, self._over = engine, lease, threading.Event()
        self.stats: dict[str, int] = {}
        self.leaves: dict[str, int] = {}
        self._threads = [threading.Thread(target=self._each, args=[way]) for way in (self._ask, self._read)]

    def __enter__(self) -> Looker:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _each(self, way: Any) -> None:
        while not self._over.wait(1.0):
            with contextlib.suppress(OSError, KeyError, ValueError):
                way()

    def _ask(self) -> None:
        for each in self._get("/containers/json"):
            if each["Labels"].get(LEASE_LABEL) == self._lease:
                said = self._get(f"/containers/{each['Id']}/stats?stream=false&one-shot=true")
                self.stats[each["Id"]] = said["cpu_stats"]["cpu_usage"]["total_usage"]

    def _read(self) -> None:
        layout = detect()
        for folder in Path("/sys/fs/cgroup").glob(f"{CPU_ROOT}dockage/{self._lease}/*/"):
            gauge = layout.gauge(f"dockage/{self._lease}/{folder.name}")
            self.leaves[folder.name] = gauge.read().cpu_ns
            gauge.close()

    def _get(self, path: str) -> Any:
        with contextlib.closing(BlockingEngine(Path(self._engine))) as engine:
            engine.request("GET", path)
            return json.loads(engine.getresponse().read())


CPU_ROOT = "" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "cpuacct/"


# -- bytes ---------------------------------------------------------------------------------------------------
def traffic(bench: Bench, rounds: int) -> dict[str, float]:
    lease, size = bench.lease(), 8 * MIB
    sink = bench.run(
        lease, IMAGE, "sh", "-c", "nc -ll -p 9 -e sh -c 'cat >/dev/null' & exec nc -ll -p 7 -e cat"
    )
    address = bench.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", sink)
    time.sleep(1)
    before, truth = bench.daemon.billed(lease), 0
    for n in range(rounds):
        bench.daemon.ask("carry", lease, sink, str(size))
        bench.daemon.billed(lease)  # what it carried itself, and did not put down, would go with it
        disturb(bench.daemon, n)
        send = f"head -c {size} /dev/zero | nc {address} 9; sed -n 's/^ *eth0: *//p' /proc/net/dev"
        said = bench.docker("start", "-a", bench.create(lease, "--rm", IMAGE, "sh", "-c", send)).split()
        inwards, outwards = [int(said[n]) - ETHERNET * int(said[n + 1]) for n in (0, 8)]
        truth += inwards + outwards  # the other replica's acknowledgements are traffic, too
    bench.daemon.ask("fresh")
    billed = bench.daemon.billed(lease)
    bench.docker("rm", "-f", sink)
    grown = {name: billed[name] - before[name] for name in billed}
    sent = rounds * size
    errors = [abs(grown[name] - sent) / sent for name in ("net_in_bytes", "net_out_bytes")]
    return {"bytes_error": max(*errors, abs(grown["replica_out_bytes"] - truth) / truth)}


# -- memory and disk --------------------------------------------------------------------------------------------
def gauges(bench: Bench, seconds: int) -> dict[str, float]:
    lease = bench.lease()
    with bench.worker(lease) as worker:
        worker.do("hold", 30)
        worker.do("write", 60)
        with Truth(bench, lease) as truth:
            for n in range(max(1, seconds // 10)):
                time.sleep(10)
                worker.do(("hold", "free")[n % 2], 6)  # a fifth more, a fifth less
                worker.do(("write", "delete")[n % 2], 12)
    return truth.errors()


class Truth:
    """Ten looks a second at the same files, integrated by the trapezoid over the time between two bills."""

    def __init__(self, bench: Bench, lease: str) -> None:
        self._bench, self._lease, self._over = bench, lease, threading.Event()
        self._gauge = detect().gauge(f"dockage/{lease}")
        self._disk = bench.daemon.home / "leases" / lease / "writable"
        self._held = [0.0, 0.0]
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Truth:
        self._opened = self._bench.daemon.billed(self._lease)
        self._last = self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._closed = self._bench.daemon.billed(self._lease)
        self._add()
        self._gauge.close()

    def _look(self) -> tuple[float, int, int]:
        return time.monotonic(), self._gauge.read().working_set, elastic.held(self._disk)

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self._add()

    def _add(self) -> None:
        last, self._last = self._last, self._look()
        for index in (0, 1):
            mean = (last[index + 1] + self._last[index + 1]) / 2
            self._held[index] += mean * (self._last[0] - last[0])

    def errors(self) -> dict[str, float]:
        found = {}
        for index, (figure, name) in enumerate(
            (("mem_error", "memory_mib_ms"), ("disk_error", "disk_mib_ms"))
        ):
            billed = (self._closed[name] - self._opened[name]) * MIB / 1000
            found[figure] = abs(billed - self._held[index]) / self._held[index]
        return found


# -- what it costs -------------------------------------------------------------------------------------------------
def costs(bench: Bench, containers: int, per_lease: int, seconds: int) -> dict[str, float]:
    base = bench.daemon.core(seconds)
    engine = engine_pids(bench.engine)
    for _ in range(0, containers, per_lease):
        lease = bench.lease()
        for _ in range(per_lease):
            bench.run(lease, IMAGE, "sleep", "10000")
    time.sleep(3)
    ours = bench.daemon.core(seconds) - base
    idle = core(engine, seconds)
    stats = subprocess.Popen(
        ["docker", "-H", f"unix://{bench.engine}", "stats"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(3)
    theirs = core([*engine, stats.pid], seconds) - idle
    stats.terminate()
    stats.wait()
    return {
        "core_per_container": ours / containers,
        "docker_stats_core_per_container": theirs / containers,
        "containers": containers,
        "leases": containers // per_lease,
    }


def engine_pids(socket_path: str) -> list[int]:
    """dockerd and its containerd, by the folder of their socket."""
    folder = str(Path(socket_path).parent)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                name = os.path.basename(words[0])
                if name in (b"dockerd", b"containerd") and folder.encode() in b" ".join(words):
                    found.append(int(entry.name))
    return found


def core(pids: list[int], seconds: float) -> float:
    before = sum(map(cpu_seconds, pids))
    time.sleep(seconds)
    return (sum(map(cpu_seconds, pids)) - before) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--per-lease", type=int, default=5)
    parser.add_argument("--engines", nargs=2, metavar=("TENANT", "PROVIDER"), help="sockets")
    parser.add_argument("--play", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        return play(json.loads(options.play))
    figures: dict[str, Any] = measured(options)
    figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    for name, value in figures.items():
        print(f"{name:<32} {value}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    subprocess.run([ROOT / "script" / "images", "load", "provider", IMAGE], check=True)
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:  # on the disk of the checkout
        daemon = Daemon(options.engines[1], Path(folder))
        bench = Bench(options.engines[1], daemon)
        try:
            figures = cpu(bench, options.rounds) | short_work(bench, options.rounds)
            figures |= traffic(bench, max(2, options.rounds // 3)) | gauges(bench, options.seconds)
            if options.containers:
                figures |= costs(bench, options.containers, options.per_lease, min(20, options.seconds))
        finally:
            daemon.close()
    return {name: round(value, 6) for name, value in figures.items()}


if __name__ == "__main__":
    main()
