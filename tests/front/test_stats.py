"""``docker stats`` shows what our meter reads, in numbers that the stock clients understand."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from typing import Any

import docker

from frontlab import LIMITS, Tenant
from hostlab import IMAGE

WORK = "dd if=/dev/zero of=/dev/shm/held bs=1M count=20 2>/dev/null; while :; do :; done"


def lines(url: str, name: str, count: int) -> list[dict[str, Any]]:
    client = docker.DockerClient(base_url=url, version="auto", timeout=60)
    try:
        return list(islice(client.api.stats(name, decode=True), count))
    finally:
        client.close()


async def test_stats_are_the_containers_own_and_sane(tenant: Tenant) -> None:
    await tenant.run("--name", "idle", IMAGE, "sleep", "100")
    await tenant.docker("run", "-d", "--name", "over", *LIMITS, IMAGE, "true")
    await tenant.run("--name", "busy", IMAGE, "sh", "-c", WORK)
    first, second, _ = await asyncio.to_thread(lines, f"unix://{tenant.socket}", "busy", 3)
    assert second["precpu_stats"] == first["cpu_stats"]
    assert second["preread"] == first["read"] < second["read"]
    assert second["cpu_stats"]["cpu_usage"]["total_usage"] > first["cpu_stats"]["cpu_usage"]["total_usage"]
    assert second["name"] == "/busy"
    assert second["id"] == (await tenant.inspect("busy"))["Id"]
    out = await tenant.docker("stats", "--no-stream", "--all", "--format", "json")
    shown = {one["Name"]: one for one in map(json.loads, out.splitlines())}
    assert 0 < float(shown["busy"]["CPUPerc"].rstrip("%")) < 75  # of one core: it may have half of one
    assert float(shown["idle"]["CPUPerc"].rstrip("%")) < 20
    used, _, limit = shown["busy"]["MemUsage"].partition(" / ")
    assert 20 <= float(used.removesuffix("MiB")) < 30
    assert limit == "64MiB"
    assert int(shown["idle"]["PIDs"]) == 1
    assert shown["over"]["PIDs"] == "0"


async def test_stats_end_with_the_container(tenant: Tenant) -> None:
    await tenant.docker("network", "create", "net")
    for name in ("box", "neighbour"):  # the lease stays
        await tenant.run("--name", name, "--network", "net", IMAGE, "sleep", "100")
    watching = asyncio.create_task(asyncio.to_thread(lines, f"unix://{tenant.socket}", "box", 1000))
    await asyncio.sleep(0.5)
    await tenant.docker("rm", "-f", "box")
    assert 0 < len(await asyncio.wait_for(watching, 10)) < 10
