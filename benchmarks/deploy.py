"""How long it takes from Enter to an answer, beside plain Docker on the same machine in the same run.

    script/bench deploy [--json FILE] [--runs N]

deploy_p50_s, deploy_p95_s   `docker compose up -d` against dockage until HTTP 200; image present, channel open
compose_p50_s                the same project with plain `docker compose up -d` on a local engine
lease_p95_ms                 from asking for a quote to a running lease
idle_core, idle_rss_mb       a provider's daemon without a lease: share of a core over 20 s, resident memory
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "script"))

from devtools.localmarket import LocalMarket  # noqa: E402
from devtools.regtest import free_port  # noqa: E402
from devtools.shell import Failed, wait_until  # noqa: E402

SITE = str(ROOT / "examples" / "site" / "compose.yaml")
IDLE_SECONDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--engines", nargs=2, metavar=("TENANT", "PROVIDER"), required=True, help="sockets")
    options = parser.parse_args()
    figures = measure(*options.engines, options.runs)
    figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    for name, value in figures.items():
        print(f"{name:<16} {value}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure(tenant_engine: str, provider_engine: str, runs: int) -> dict[str, Any]:
    world = LocalMarket(tenant_engine, provider_engine, {"ada": 1}, channel_sat=500_000)
    try:
        world.start()
        world.fund_tenant(5_000_000)
        world.mine_every(1.0)
        world.wait_for_offers(1)
        idle = idle_provider(world)
        world.docker("compose", "-f", SITE, "build")
        # The first run opens the channel and ships the image; a lease that stays keeps the image there.
        keeper = world.docker(
            "run", "-d", "--cpus=0.1", "--memory=32m", "dockage-example/site"
        ).stdout.strip()
        deploys = [deploy_and_settle(world, f"bench{n}") for n in range(runs)]
        handshakes = handshake_times(world.tenant.log.read_text())[1:]
        world.docker("rm", "-f", keeper)
        plain = [deploy(f"unix://{tenant_engine}", f"plain{n}") for n in range(runs)]
    finally:
        world.close()
    return {
        "deploy_p50_s": round(statistics.median(deploys), 3),
        "deploy_p95_s": round(percentile(deploys, 95), 3),
        "compose_p50_s": round(statistics.median(plain), 3),
        "lease_p95_ms": round(percentile(handshakes, 95)),
        **idle,
        "runs": runs,
    }


def deploy_and_settle(world: LocalMarket, project: str) -> float:
    """The next run begins when the provider has cleared the last lease away, as it would for a person."""
    taken = deploy(world.tenant.docker_host, project)
    wait_until(lambda: world.tenant.ask("GET", "/v1/spend")["running"] == 1, 20)
    wait_until(
        lambda: (
            world.providers["ada"].ask("GET", "/v1/earnings")["ended"]
            >= len(world.tenant.ask("GET", "/v1/spend")["leases"]) - 1
        ),
        20,
    )
    return taken


def deploy(docker_host: str, project: str) -> float:
    """Seconds from Enter to HTTP 200, then taken down again."""
    port = free_port()
    environment = {**os.environ, "DOCKER_HOST": docker_host, "SITE_PORT": str(port)}
    command = ["docker", "compose", "-f", SITE, "-p", project]
    began = time.monotonic()
    must([*command, "up", "-d", "--no-build", "--pull", "never"], environment)
    if not wait_until(lambda: fetch(port) == 200, 30, 0.005):
        raise Failed(f"no answer on port {port}")
    taken = time.monotonic() - began
    must([*command, "down", "-t", "0"], environment)
    return taken


def handshake_times(log: str) -> list[float]:
    """Milliseconds, of each lease, as the tenant's daemon saw them."""
    return [float(ms) for ms in re.findall(r"lease\.running.* ms=(\d+)", log)]


def must(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")


def fetch(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def idle_provider(world: LocalMarket) -> dict[str, float]:
    process = world.providers["ada"].process
    assert process is not None
    time.sleep(3)  # the start-up is over
    before = cpu_seconds(process.pid)
    time.sleep(IDLE_SECONDS)
    used = cpu_seconds(process.pid) - before
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    rss = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return {"idle_core": round(used / IDLE_SECONDS, 4), "idle_rss_mb": round(rss, 1)}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


if __name__ == "__main__":
    main()
