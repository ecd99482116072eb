"""Daemons that restart, leases that end, providers that vanish."""

from __future__ import annotations

import asyncio
import json
import os
import stat

import pytest

from dockage.domain.errors import UsageError
from frontlab import LIMITS, SITE, Tenant, closed, free_port, serves, until
from hostlab import IMAGE


async def test_a_restart_of_the_daemon_changes_nothing(tenant: Tenant) -> None:
    port = free_port()
    await tenant.docker("network", "create", "--label", "a=b", "net")
    await tenant.docker("volume", "create", "data")
    id_ = await tenant.run(
        "--name", "web", "--network", "net", "-v", "data:/d", "-p", f"{port}:80", IMAGE, "sh", "-c", SITE
    )
    await until(lambda: serves(port))
    before = await tenant.inspect("web")
    await tenant.stop()
    assert await closed(port)
    await tenant.start()
    await until(lambda: serves(port))
    after = await tenant.inspect("web")
    assert after == before
    assert await tenant.docker("ps", "-q", "--no-trunc") == id_
    assert await tenant.docker("network", "ls", "-q", "--filter", "label=a=b") != ""
    await tenant.docker("rm", "-f", "web")
    await tenant.docker("volume", "rm", "data")
    await until(lambda: len(tenant.leases.all()) == 0)


async def test_what_happened_while_the_daemon_was_down_is_noticed(tenant: Tenant) -> None:
    await tenant.docker("run", "-d", "--rm", "--name", "short", *LIMITS, IMAGE, "sleep", "1")
    await tenant.stop()
    await asyncio.sleep(1.5)
    await tenant.start()
    await until(lambda: len(tenant.leases.all()) == 0)
    assert await tenant.docker("ps", "-aq") == ""


async def test_containers_of_an_ended_lease_are_shown_with_the_reason_and_can_be_removed(
    tenant: Tenant,
) -> None:
    port = free_port()
    await tenant.run("--name", "web", "-p", f"{port}:80", IMAGE, "sh", "-c", SITE)
    await until(lambda: serves(port))
    [info] = tenant.leases.all()
    waiting = asyncio.create_task(tenant.tried("wait", "web"))
    await until(lambda: tenant.front.clients > 0)
    await tenant.leases.end(info.id, "the provider needs its machine")
    await until(lambda: closed(port))
    assert "137" in (await waiting).out
    line = json.loads(await tenant.docker("ps", "-a", "--format", "{{json .}}"))
    assert line["State"] == "exited"
    assert "the provider needs its machine" in line["Status"]
    found = await tenant.inspect("web")
    assert "the provider needs its machine" in found["State"]["Error"]
    assert found["Config"]["Labels"]["dockage.lease"] == info.id.hex()
    assert "the provider needs its machine" in await tenant.refused("logs", "web")
    assert await tenant.docker("wait", "web") == "137"
    await tenant.stop()
    await tenant.start()
    assert (await tenant.inspect("web"))["State"]["Status"] == "exited"
    await tenant.docker("rm", "web")
    assert await tenant.docker("ps", "-aq") == ""


async def test_what_is_at_a_lease_that_is_just_ending_is_removed_like_anything_else(tenant: Tenant) -> None:
    await tenant.docker("network", "create", "net")
    await tenant.docker("volume", "create", "data")
    await tenant.run("--name", "web", "--network", "net", "-v", "data:/d", IMAGE, "sleep", "60")
    [info] = tenant.leases.all()
    tenant.leases.begin_end(info.id, "our user took the deployment down")
    for kind in (["network", "rm", "net"], ["rm", "-f", "web"], ["volume", "rm", "data"]):
        await tenant.docker(*kind)
    assert await tenant.docker("ps", "-aq") == ""


async def test_start_and_restart_place_a_container_of_an_ended_lease_again(tenant: Tenant) -> None:
    port = free_port()
    await tenant.docker("network", "create", "net")
    id_ = await tenant.run("--name", "web", "--network", "net", "-p", f"{port}:80", IMAGE, "sh", "-c", SITE)
    [old] = tenant.leases.all()
    await tenant.leases.end(old.id, "gone")
    await until(lambda: closed(port))
    await tenant.docker("restart", "-t", "0", "web")  # as a start, since there is nothing to stop
    await until(lambda: serves(port))
    [new] = tenant.leases.all()
    assert new.id != old.id
    assert await tenant.docker("ps", "-q", "--no-trunc") == id_
    assert await tenant.docker("exec", "web", "echo", "alive") == "alive"
    assert (await tenant.docker("stats", "--no-stream", "--format", "{{.Name}}")) == "web"
    await tenant.docker("rm", "-f", "web")
    await until(lambda: len(tenant.leases.all()) == 0)


async def test_one_silent_provider_does_not_hide_the_others(tenant: Tenant) -> None:
    await tenant.run("--name", "far", IMAGE, "sleep", "60")
    await tenant.run("--name", "near", IMAGE, "sleep", "60")
    far = next(info for info in tenant.leases.all() if info.deployment == "far")
    tenant.leases.vanish(far.id)
    names = (await tenant.docker("ps", "--format", "{{.Names}} {{.Status}}")).splitlines()
    assert len(names) == 2
    assert any(name.startswith("far") and "last known state" in name for name in names)
    assert "does not answer" in await tenant.refused("logs", "far")
    tenant.leases.out_of_reach.clear()


async def test_the_socket_is_its_owners_and_goes_with_the_daemon(tenant: Tenant) -> None:
    assert stat.S_IMODE(os.stat(tenant.socket).st_mode) == 0o600
    other = Tenant(tenant._front, tenant.socket, tenant.leases, tenant.env)
    with pytest.raises(UsageError, match="another daemon answers"):
        await other.start()
    await tenant.stop()
    assert not tenant.socket.exists()


async def test_nothing_in_the_market_fits_is_told_to_the_user(tenant: Tenant) -> None:
    message = await tenant.refused("run", "-d", "--memory", "100g", IMAGE, "true")
    assert "no offer has enough" in message
    assert await tenant.docker("ps", "-aq") == ""


async def test_an_attachment_to_what_never_ran_ends_with_the_lease(tenant: Tenant) -> None:
    await tenant.docker("create", "--name", "box", "-i", *LIMITS, IMAGE, "cat")
    reader, writer = await asyncio.open_unix_connection(str(tenant.socket))
    head = "POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n"
    writer.write(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
    assert b" 101 " in await reader.readline()
    writer.write_eof()  # nobody reads from this client any more
    await tenant.leases.end(tenant.leases.all()[0].id, "gone")
    await asyncio.wait_for(reader.read(), 10)
    writer.close()
