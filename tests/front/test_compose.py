"""One project and everything that people do with it, by both generations of compose: the plugin and 1.29 in Python."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from frontlab import Tenant, until
from hostlab import IMAGE

COMPOSE = f"""
services:
  web:
    image: {IMAGE}
    command: sh -c "mkdir -p /www && echo $$GREETING > /www/index.html && exec httpd -f -p 80 -h /www"
    env_file: web.env
    stop_grace_period: 0s
    networks: [front]
    healthcheck: {{test: wget -q -O /dev/null http://127.0.0.1/, interval: 1s, start_period: 5s}}
    mem_limit: 32m
    cpus: 0.2
  client:
    image: {IMAGE}
    command: sh -c "wget -q -O - http://web/ && echo kept >> /data/log && while sleep 0.2; do echo tick; done"
    stop_grace_period: 0s
    networks: [front]
    volumes: ["data:/data"]
    depends_on:
      web: {{condition: service_healthy}}
    mem_limit: 32m
    cpus: 0.2
  tool:
    image: {IMAGE}
    profiles: [extra]
    command: sh -c "wget -q -O - http://web/; exit 3"
    networks: [front]
    mem_limit: 32m
    cpus: 0.2
networks:
  front: {{}}
volumes:
  data: {{}}
"""


class Compose:
    def __init__(self, tenant: Tenant, folder: Path, program: tuple[str, ...]) -> None:
        self.tenant, self.folder, self.program = tenant, folder, program

    def command(self, *argv: str) -> list[str]:
        return [
            *self.program[1:],
            "--project-directory",
            str(self.folder),
            "-f",
            f"{self.folder}/compose.yaml",
            *argv,
        ]

    async def __call__(self, *argv: str, code: int = 0) -> str:
        result = await self.tenant.tried(*self.command(*argv), program=self.program[0])
        assert result.code == code, (argv, result)
        return result.out

    async def names(self) -> list[str]:
        shown = await self.tenant.docker("ps", "--format", '{{.Label "com.docker.compose.service"}}')
        return sorted(shown.split())

    async def started(self, service: str) -> str:
        label = f"label=com.docker.compose.service={service}"
        id_ = await self.tenant.docker("ps", "-q", "--filter", label)
        return str((await self.tenant.inspect(id_))["State"]["StartedAt"])


@pytest.fixture(params=["plugin", "python"])
def compose(request: pytest.FixtureRequest, tenant: Tenant, folder: Path, docker_config: Path) -> Compose:
    tenant.env["DOCKER_CONFIG"] = str(docker_config)
    (folder / "shop").mkdir()
    (folder / "shop" / "compose.yaml").write_text(COMPOSE)
    (folder / "shop" / "web.env").write_text("GREETING=hello from the file\n")
    if request.param == "plugin":
        return Compose(tenant, folder / "shop", ("docker", "compose"))
    return Compose(tenant, folder / "shop", (str(docker_config.parent / "compose1" / "docker-compose"),))


async def test_a_project_from_up_to_down(tenant: Tenant, compose: Compose) -> None:
    await compose("up", "-d", "--scale", "client=2")
    assert await compose.names() == ["client", "client", "web"]
    assert len(tenant.leases.all()) == 1
    script = "wget -q -O - http://web/ && cat /data/log"
    out = await compose("exec", "-T", "client", "sh", "-c", script)
    assert out.splitlines() == ["hello from the file", "kept", "kept"]

    following = await tenant.process(*compose.command("logs", "-f", "client"), program=compose.program[0])
    assert following.stdout
    async with asyncio.timeout(20):
        while b"tick" not in await following.stdout.readline():
            pass
    following.terminate()
    await following.communicate()

    before = await tenant.docker("ps", "-q", "--no-trunc")
    await compose("up", "-d", "--scale", "client=2")  # nothing changed, so nothing may be recreated
    assert await tenant.docker("ps", "-q", "--no-trunc") == before
    started = await compose.started("web")
    await compose("restart", "-t", "0", "web")
    assert await compose.started("web") > started

    out = await compose("--profile", "extra", "up", "--exit-code-from", "tool", "tool", code=3)
    assert "hello from the file" in out, "an attached project shows what its containers say"
    await compose("--profile", "extra", "down", "-v", "-t", "0")
    assert await tenant.docker("ps", "-aq") == ""
    assert await tenant.docker("volume", "ls", "-q") == ""
    assert await tenant.docker("network", "ls", "-q", "--filter", "type=custom") == ""
    await until(lambda: len(tenant.leases.all()) == 0)


async def test_a_refused_service_is_named_with_its_key(tenant: Tenant, compose: Compose) -> None:
    text = f"services:\n  bad:\n    image: {IMAGE}\n    privileged: true\n    devices: [/dev/fuse]\n"
    (compose.folder / "compose.yaml").write_text(text)
    result = await tenant.tried(*compose.command("up", "-d"), program=compose.program[0])
    assert result.code != 0
    for word in ("service bad cannot run on dockage", "HostConfig.Privileged", "HostConfig.Devices"):
        assert word in result.err
    assert tenant.leases.obtained == []
