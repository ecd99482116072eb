"""Networks, volumes and compose projects: what several containers share, and when the lease is given back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from frontlab import LIMITS, Tenant, until
from hostlab import IMAGE

COMPOSE = f"""
services:
  web:
    image: {IMAGE}
    command: sh -c "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www"
    stop_grace_period: 1s
    healthcheck:
      test: wget -q -O /dev/null http://127.0.0.1/
      interval: 1s
    deploy: &small
      resources:
        limits: {{cpus: "0.25", memory: 32M}}
  client:
    image: {IMAGE}
    command: sh -c "wget -q -O - http://web/ && echo kept >> /data/log && exec sleep 60"
    stop_grace_period: 1s
    volumes: ["data:/data"]
    depends_on:
      web: {{condition: service_healthy}}
    deploy: *small
volumes:
  data: {{}}
"""


@pytest.fixture
def project(folder: Path, tenant: Tenant, docker_config: Path) -> Path:
    tenant.env["DOCKER_CONFIG"] = str(docker_config)
    path = folder / "shop"
    path.mkdir()
    (path / "compose.yaml").write_text(COMPOSE)
    return path


async def compose(tenant: Tenant, project: Path, *argv: str) -> str:
    return await tenant.docker("compose", "--project-directory", str(project), *argv)


async def test_two_services_of_a_project_find_each_other_on_one_lease(tenant: Tenant, project: Path) -> None:
    await compose(tenant, project, "up", "-d")
    assert len(tenant.leases.all()) == 1
    assert {deployment for deployment, _, _ in tenant.leases.obtained} == {"shop"}
    services = (await compose(tenant, project, "ps", "--services", "--status", "running")).split()
    assert sorted(services) == ["client", "web"]
    assert "hello" in await compose(tenant, project, "logs", "client")
    assert await compose(tenant, project, "exec", "-T", "client", "cat", "/data/log") == "kept"
    obtained = len(tenant.leases.obtained)
    before = await tenant.docker("ps", "-aq", "--no-trunc")
    await compose(tenant, project, "up", "-d")  # nothing changed, so nothing may be recreated
    assert await tenant.docker("ps", "-aq", "--no-trunc") == before
    await compose(tenant, project, "up", "-d", "--force-recreate", "client")
    assert len(tenant.leases.obtained) <= obtained + 1

    await compose(tenant, project, "down")
    assert await tenant.docker("ps", "-aq") == ""
    assert await tenant.docker("network", "ls", "-q", "--filter", "name=shop") == ""
    await asyncio.sleep(0.5)
    assert len(tenant.leases.all()) == 1, "the volume's data lives there"

    await compose(tenant, project, "up", "-d")
    log = await compose(tenant, project, "exec", "-T", "client", "cat", "/data/log")
    assert len(log.split()) >= 2, "the data outlived its containers"
    await compose(tenant, project, "down", "-v")
    assert await tenant.docker("volume", "ls", "-q") == ""
    await until(lambda: len(tenant.leases.all()) == 0)


async def test_networks_are_the_tenants_until_a_container_needs_them(tenant: Tenant) -> None:
    id_ = await tenant.docker("network", "create", "--label", "a=b", "net")
    assert tenant.leases.obtained == []
    [shown] = json.loads(await tenant.docker("network", "inspect", "net"))
    assert (shown["Id"], shown["Labels"], shown["Containers"]) == (id_, {"a": "b"}, {})
    assert (await tenant.docker("network", "ls", "-q", "--no-trunc", "--filter", "label=a=b")) == id_
    names = set((await tenant.docker("network", "ls", "--format", "{{.Name}}")).split())
    assert names == {"bridge", "host", "none", "net"}
    assert "already exists" in await tenant.refused("network", "create", "net")
    assert "not found" in await tenant.refused("network", "inspect", "other")

    await tenant.run("--network", "net", "--name", "one", "--network-alias", "uno", IMAGE, "sleep", "60")
    await tenant.run("--network", "net", "--name", "two", IMAGE, "sleep", "60")
    assert len(tenant.leases.all()) == 1, "they share a network, so they share a lease"
    await tenant.docker("exec", "two", "nslookup", "uno")
    await tenant.docker("exec", "one", "nslookup", "two")
    [shown] = json.loads(await tenant.docker("network", "inspect", "net"))
    assert sorted(member["Name"] for member in shown["Containers"].values()) == ["one", "two"]
    assert (await tenant.inspect("one"))["NetworkSettings"]["Networks"]["net"]["NetworkID"] == id_
    assert "active endpoints" in await tenant.refused("network", "rm", "net")

    await tenant.docker("network", "create", "more")
    await tenant.docker("network", "connect", "more", "one")
    assert "more" in (await tenant.inspect("one"))["NetworkSettings"]["Networks"]
    await tenant.docker("network", "disconnect", "more", "one")
    shown = ("--filter", "network=more", "--format", "{{.Action}}")

    async def told() -> bool:
        """What the lease's engine says of it comes after its answer."""
        events = await tenant.docker("events", "--since", "60s", "--until", "0s", *shown)
        return events.split() == ["create", "connect", "disconnect"]

    await until(told)
    await tenant.docker("rm", "-f", "one", "two")
    await tenant.docker("network", "rm", "net", "more")
    await until(lambda: len(tenant.leases.all()) == 0)


async def test_a_volume_keeps_its_data_and_its_lease(tenant: Tenant) -> None:
    assert await tenant.docker("volume", "create", "--label", "a=b", "data") == "data"
    assert tenant.leases.obtained == []
    await tenant.docker("run", "--rm", *LIMITS, "-v", "data:/d", IMAGE, "sh", "-c", "echo kept > /d/file")
    assert await tenant.docker("run", "--rm", *LIMITS, "-v", "data:/d", IMAGE, "cat", "/d/file") == "kept"
    await tenant.docker("create", "--name", "user", *LIMITS, "-v", "data:/d", IMAGE)
    [mount] = (await tenant.inspect("user"))["Mounts"]
    assert (mount["Type"], mount["Name"], mount["Destination"]) == ("volume", "data", "/d")
    [used] = json.loads(await tenant.docker("system", "df", "-v", "--format", "json"))["Volumes"]
    assert (used["Name"], used["Links"]) == ("data", "1")
    assert used["Size"].endswith(("kB", "MB")), used
    assert "volume is in use" in await tenant.refused("volume", "rm", "data")
    assert "user" in await tenant.docker("ps", "-a", "--filter", "volume=data", "--format", "{{.Names}}")
    await tenant.docker("rm", "user")
    await asyncio.sleep(0.5)
    assert len(tenant.leases.all()) == 1
    assert await tenant.docker("volume", "ls", "-q", "--filter", "label=a=b") == "data"
    await tenant.docker("volume", "rm", "data")
    await until(lambda: len(tenant.leases.all()) == 0)
    assert "no such volume" in await tenant.refused("volume", "inspect", "data")


async def test_what_cannot_be_shared_across_leases_says_so(tenant: Tenant) -> None:
    for number in ("one", "two"):
        await tenant.docker("network", "create", number)
        await tenant.docker("create", *LIMITS, "--name", f"c-{number}", "--network", number, IMAGE, "true")
    message = await tenant.refused("network", "connect", "one", "c-two")
    assert "network one belongs to the deployment" in message


async def test_prune_removes_what_is_over_and_nothing_else(tenant: Tenant) -> None:
    await tenant.run("--name", "lives", IMAGE, "sleep", "60")
    await tenant.docker("create", "--name", "never", *LIMITS, IMAGE, "true")
    await tenant.docker("network", "create", "unused")
    await tenant.docker("container", "prune", "-f")
    await tenant.docker("network", "prune", "-f")
    assert await tenant.docker("ps", "-a", "--format", "{{.Names}}") == "lives"
    assert await tenant.docker("network", "ls", "-q", "--filter", "type=custom") == ""
