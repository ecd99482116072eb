"""The gateway's name server beside unbound answering from memory, asked by dnsperf in the same run.

    script/bench dns [--json FILE] [--apps N] [--seconds N]

dns_qps       answers a second over UDP for N apps' names, A records, one core; no pace for each network
noise_qps     the same for names that nobody has, each asked once: what a flood of random names looks like
unbound_qps   unbound with the same names as local data, one thread
change_ms     from a new document until its name is answered, p95
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import uvloop
from msgspec.structs import replace

from dockage.adapters.dns import DnsServer, Limits
from dockage.daemon.naming import Naming
from dockage.domain.deployment import Document, Site, alias
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import HOUR, Instant
from dockage.testing.clock import START, ManualClock
from dockage.testing.directory import MemoryDirectory
from dockage.testing.keys import verify

TOOLS = Path(__file__).resolve().parent.parent / ".dev/dns-tools"
LOCAL, ZONE = "127.0.0.1", "gw.example"
TENANT = NodeKey(bytes(range(32)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--apps", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        uvloop.run(serve(options.apps))
        return
    with tempfile.TemporaryDirectory(prefix="dk-dns-") as folder:
        figures = measure(options, Path(folder))
    print(f"dns_qps      {figures['dns_qps']:8.0f}")
    print(f"noise_qps    {figures['noise_qps']:8.0f}")
    print(f"unbound_qps  {figures['unbound_qps']:8.0f}    to compare with")
    print(f"change_ms    {figures['change_ms']:8.0f}")
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    rand = Random(1)
    names = folder / "names"
    names.write_text("".join(f"{host(x)} A\n" for x in range(options.apps)))
    noise = folder / "noise"
    noise.write_text("".join(f"{rand.randbytes(9).hex()}.{ZONE} A\n" for _ in range(200_000)))
    server = [sys.executable, __file__, "--play", "--apps", str(options.apps)]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as ours:
        assert ours.stdout is not None
        try:
            port = int(ours.stdout.readline())
            figures = {
                "dns_qps": perf(port, names, options.seconds),
                "noise_qps": perf(port, noise, options.seconds),
            }
        finally:
            ours.terminate()
    figures["unbound_qps"] = unbound(folder, names, options)
    figures["change_ms"] = asyncio.run(change(options.apps))
    return figures


def perf(port: int, names: Path, seconds: int) -> float:
    command = [
        TOOLS / "dnsperf",
        "-s",
        LOCAL,
        "-p",
        str(port),
        "-d",
        names,
        "-l",
        str(seconds),
        "-c",
        "8",
        "-q",
        "100",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    lost = float(re.search(r"Queries lost:\s+\d+ \(([\d.]+)%\)", told)[1])
    assert lost < 1, told
    return float(re.search(r"Queries per second:\s+([\d.]+)", told)[1])


def unbound(folder: Path, names: Path, options: argparse.Namespace) -> float:
    port = 20_000 + os.getpid() % 20_000
    data = "".join(f'  local-data: "{host(x)}. 5 IN A 203.0.113.5"\n' for x in range(options.apps))
    (folder / "unbound.conf").write_text(
        f'server:\n  interface: {LOCAL}\n  port: {port}\n  username: ""\n  chroot: ""\n  directory: "{folder}"\n'
        f'  pidfile: ""\n  use-syslog: no\n  num-threads: 1\n  local-zone: "{ZONE}" static\n{data}'
    )
    with subprocess.Popen(
        [TOOLS / "unbound", "-d", "-c", folder / "unbound.conf"], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            while "start of service" not in server.stderr.readline():
                assert server.poll() is None
            return perf(port, names, options.seconds)
        finally:
            server.terminate()


# -- our server ----------------------------------------------------------------------------------------
def host(app: int) -> str:
    return alias(f"app{app}", TENANT, ZONE)


def naming(documents: dict[LeaseId, Document]) -> Naming:
    async def probe(address: str) -> bool:
        return True

    clock = ManualClock()
    market = MemoryDirectory(verify, clock)
    return Naming(ZONE, ("203.0.113.5",), lambda: documents, lambda lease: True, market, verify, clock, probe)


def documents(apps: int) -> dict[LeaseId, Document]:
    return {
        LeaseId(x.to_bytes(16, "big")): Document(
            TENANT, f"app{x}", 1, Instant(START + HOUR), (Site((host(x),), 80, "web"),), (), ()
        )
        for x in range(apps)
    }


async def serve(apps: int) -> None:
    found = naming(documents(apps))
    found.look()
    limits = Limits(per_second=1e9, burst=1e9)
    await DnsServer(found.respond, limits).serve(LOCAL, 0, lambda port: print(port, flush=True))


async def change(apps: int) -> float:
    published = documents(apps)
    found = naming(published)
    task, took = asyncio.create_task(found.keep_up()), list[float]()
    await asyncio.sleep(0.5)
    for x in range(20):
        lease = LeaseId(x.to_bytes(16, "big"))
        name = f"new{x}.example.org"
        began = time.perf_counter()
        published[lease] = replace(published[lease], sites=(Site((name,), 80, "web"),))
        while name not in found.names:  # noqa: ASYNC110 - as a resolver would ask again
            await asyncio.sleep(0.005)
        took.append(time.perf_counter() - began)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return round(sorted(took)[18] * 1000, 1)


if __name__ == "__main__":
    main()
