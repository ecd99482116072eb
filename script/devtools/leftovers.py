"""What a test run may leave behind on a machine, listed before and after.

leftovers.py save FILE        notes what there is
leftovers.py compare FILE     prints what came since, and fails if there is any
leftovers.py engine SOCKET    prints the containers, networks and volumes in an engine, and fails likewise
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from devtools import rules  # noqa: E402
from devtools.shell import run, wait_until  # noqa: E402


def processes() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in ancestors():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if words:  # neither a kernel thread nor a process that has ended
                yield f"{entry.name} {words[:200]}"


def ancestors() -> set[int]:
    found, pid = {0}, os.getpid()
    while pid not in found:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield line.split()[4]


def links() -> Iterator[str]:
    for link in json.loads(run("ip", "-json", "link", "show") or "[]"):
        yield str(link["ifname"])


def namespaces() -> Iterator[str]:
    for folder in Path("/run/netns"), Path("/run/docker/netns"):
        if folder.exists():
            yield from map(str, folder.iterdir())


def firewall() -> Iterator[str]:
    state = rules.snapshot()
    for rule in state.rules:
        yield f"{rule.tool} -t {rule.table} -A {rule.chain} {rule.text}"
    for chain in state.chains:
        if chain.policy != "ACCEPT":
            yield f"{chain.tool} -t {chain.table} chain {chain.name} {chain.policy}"


def loops() -> Iterator[str]:
    """Only those on files of this run: the kernel shows the devices of every sandbox to all of them."""
    ours = [os.environ[name] for name in ("TMPDIR", "DOCKAGE_SUITE") if name in os.environ]
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        file = device.read_text().strip()
        if not ours or any(file.startswith(folder) for folder in ours):
            yield f"{device.parent.parent.name} {file}"


def cgroups() -> Iterator[str]:
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        if "dockage" in folder:
            yield folder


KINDS: dict[str, Callable[[], Iterator[str]]] = {
    "process": processes,
    "mount": mounts,
    "interface": links,
    "network namespace": namespaces,
    "firewall": firewall,
    "loop device": loops,
    "cgroup": cgroups,
}


def inventory() -> dict[str, list[str]]:
    return {kind: sorted(listing()) for kind, listing in KINDS.items()}


def new_since(before: dict[str, list[str]]) -> list[str]:
    return [
        f"{kind}: {thing}"
        for kind, things in inventory().items()
        for thing in things
        if things.count(thing) > before[kind].count(thing)
    ]


def in_engine(socket: str) -> list[str]:
    docker = ["docker", "--host", f"unix://{socket}"]
    listings = {
        "container": ["ps", "--all", "--format", "{{.Names}} {{.Image}} {{.Status}}"],
        "docker network": ["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"],
        "volume": ["volume", "ls", "--format", "{{.Name}}"],
    }
    return [
        f"{kind}: {line}" for kind, words in listings.items() for line in run(*docker, *words).splitlines()
    ]


def main(action: str, argument: str) -> int:
    if action == "save":
        Path(argument).write_text(json.dumps(inventory()))
        return 0
    if action == "compare":
        before = json.loads(Path(argument).read_text())
        wait_until(lambda: not new_since(before), 5)  # the kernel takes a moment to bury the last ones
        found = new_since(before)
    else:
        found = in_engine(argument)
    for line in found:
        print(f"left behind: {line}")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except subprocess.SubprocessError as error:
        sys.exit(f"error: {error}")
