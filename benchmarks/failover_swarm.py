# engines: none
"""How long three nodes of Docker Swarm take to answer again when the one that serves is cut off silently.

    script/sandbox .venv/bin/python benchmarks/failover_swarm.py --image docker-archive.tar --folder FOLDER [--runs N]

A manager and two workers, Swarm's own defaults, each dockerd in a network namespace of its own behind one bridge.
One replica with a port published by its host (routing by IPVS is another matter, and not every kernel has it). The
cut takes the node's cable out: nothing is closed, nobody is told. Prints the seconds of each cut as JSON lines.

It must run in script/sandbox, which takes down with it whatever this starts. ``benchmarks/failover.py`` does so.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchlab import Failed, run, wait_until

PATIENCE, PORT, IMAGE = 90.0, 8080, "dockage/base:bookworm"
NAMES = ("manager", "left", "right")
SITE = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one, for the engines")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if os.path.exists("/sys/class/net/swarm") or os.getppid() != 1:
        raise SystemExit("this runs in script/sandbox only")
    swarm = Swarm(options.folder, options.image)
    for number in range(1, options.runs + 1):
        took = swarm.cut()
        print(json.dumps(round(took, 2)), flush=True)
        print(f"         swarm {number}/{options.runs}: {took:.2f} s", file=sys.stderr, flush=True)


class Machine:
    """A dockerd behind a cable of its own."""

    def __init__(self, number: int, name: str, folder: Path) -> None:
        self.name, self.address = name, f"10.99.0.{number}"
        self.folder = folder / name
        self.folder.mkdir()
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", name, "master", "swarm", "up")
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")
        self.start()

    def inside(self, *command: str) -> None:
        run("ip", "netns", "exec", self.name, *command)

    def start(self) -> None:
        config, log = self.folder / "daemon.json", self.folder / "log"
        config.write_text("{}\n")
        daemon = (
            *("dockerd", f"--config-file={config}", f"--data-root={self.folder}/data"),
            *(f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid", f"--host={self.host}"),
            *("--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/swarm-{self.name}"),
        )
        # A name of its own: a service says on which nodes it may run, and the machine's is the same for all three.
        named = f'hostname {self.name}; exec "$@"'
        command = (
            "nsenter",
            f"--net=/run/netns/{self.name}",
            "unshare",
            "--uts",
            "sh",
            "-c",
            named,
            "-",
            *daemon,
        )
        with log.open("wb") as out:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def docker(self, *arguments: str, check: bool = True) -> str:
        return run("docker", "--host", self.host, *arguments, check=check).strip()

    def plug(self, state: str) -> None:
        run("ip", "link", "set", self.name, state)

    def answers(self) -> bool:
        connection = http.client.HTTPConnection(self.address, PORT, timeout=0.5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Swarm:
    def __init__(self, folder: Path, image: Path) -> None:
        run("ip", "link", "add", "swarm", "type", "bridge")
        run("ip", "address", "add", "10.99.0.254/24", "dev", "swarm")
        run("ip", "link", "set", "swarm", "up")
        machines = [Machine(n, name, folder) for n, name in enumerate(NAMES, 1)]
        self.manager, self.workers = machines[0], machines[1:]
        for machine in machines:
            expect(lambda m=machine: m.docker("version", check=False), f"{machine.name} to start")  # type: ignore[misc]
            machine.docker("load", "--input", str(image))
        self.manager.docker("swarm", "init", f"--advertise-addr={self.manager.address}")
        token = self.manager.docker("swarm", "join-token", "--quiet", "worker")
        for worker in self.workers:
            worker.docker("swarm", "join", f"--token={token}", f"{self.manager.address}:2377")
        self.manager.docker(
            *("service", "create", "--name=site", "--detach", "--no-resolve-image"),
            *("--constraint=node.role==worker", f"--publish=mode=host,target=80,published={PORT}"),
            *(IMAGE, "sh", "-c", SITE),
        )

    def cut(self) -> float:
        expect(self.whole, "the swarm to be whole")
        [victim] = [worker for worker in self.workers if worker.answers()]
        [other] = [worker for worker in self.workers if worker is not victim]
        victim.plug("down")
        begun = time.monotonic()
        try:
            expect(other.answers, "the other worker to answer")
            return time.monotonic() - begun
        finally:
            victim.plug("up")

    def whole(self) -> bool:
        """All nodes are ready, and one serves: the copy on a node that was cut off is only ended once it is back."""
        states = self.manager.docker("node", "ls", "--format={{.Status}}").split()
        return states == ["Ready"] * len(NAMES) and sum(worker.answers() for worker in self.workers) == 1


def expect(true: object, what: str) -> None:
    assert callable(true)
    if not wait_until(true, PATIENCE, 0.05):
        raise Failed(f"waited {PATIENCE:g} s for {what}")


if __name__ == "__main__":
    main()
