"""Published ports: they listen on the tenant's machine and end in a container on the lease."""

from __future__ import annotations

import asyncio
import socket

from frontlab import LIMITS, SITE, Tenant, closed, fetch, free_port, serves, until
from hostlab import IMAGE


async def test_a_published_port_is_reached_shown_and_closed(tenant: Tenant) -> None:
    port = free_port()
    await tenant.run("--name", "web", "-p", f"{port}:80", IMAGE, "sh", "-c", SITE)
    await until(lambda: serves(port))
    assert await tenant.docker("port", "web") == f"80/tcp -> 127.0.0.1:{port}"
    assert f"127.0.0.1:{port}->80/tcp" in await tenant.docker("ps", "--format", "{{.Ports}}")
    assert await tenant.docker("ps", "-q", "--filter", f"publish={port}") != ""
    for _ in range(4):  # no more at once than busybox queues
        answers = await asyncio.gather(*(fetch(port) for _ in range(8)))
        assert [answer for answer in answers if "hello" not in answer] == []
    await tenant.docker("stop", "-t", "1", "web")
    assert await closed(port)
    assert await tenant.docker("port", "web") == ""
    await tenant.docker("start", "web")
    await until(lambda: serves(port))
    await tenant.docker("kill", "web")
    await until(lambda: closed(port))


async def test_a_port_of_its_own_choice(tenant: Tenant) -> None:
    await tenant.run("--name", "web", "-p", "80", IMAGE, "sh", "-c", SITE)
    port = int((await tenant.docker("port", "web", "80")).rpartition(":")[2])
    await until(lambda: serves(port))
    await tenant.docker("rm", "-f", "web")
    assert await closed(port)


async def test_a_busy_port_is_refused_in_dockers_words(tenant: Tenant) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = await tenant.refused(
            "run", "-d", "--name", "web", *LIMITS, "-p", f"{port}:80", IMAGE, "sleep", "9"
        )
    assert "driver failed programming external connectivity" in message
    assert "address already in use" in message
    assert (await tenant.inspect("web"))["State"]["Status"] == "created"
    await tenant.docker("start", "web")


async def test_udp_is_refused_before_anything_is_paid(tenant: Tenant) -> None:
    message = await tenant.refused("create", "-p", "53:53/udp", *LIMITS, IMAGE, "true")
    assert "only TCP ports are tunnelled" in message
    assert tenant.leases.obtained == []


async def test_much_data_passes_whole_and_backwards_pressure_holds(tenant: Tenant) -> None:
    port = free_port()
    await tenant.run(
        "--name", "sink", "-p", f"{port}:9", IMAGE, "sh", "-c", "while :; do nc -l -p 9 -e wc -c; done"
    )
    await asyncio.sleep(1)

    async def counted() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x" * 20_000_000)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
        except OSError:
            return False
        return answer.strip() == b"20000000"

    await until(counted)


async def test_a_restarting_container_keeps_its_port(tenant: Tenant) -> None:
    port = free_port()
    script = SITE.replace("exec httpd", "httpd").replace("-f ", "") + "; sleep 1.5; rm -r /www; exit 1"
    await tenant.run("--name", "web", "--restart", "always", "-p", f"{port}:80", IMAGE, "sh", "-c", script)
    await until(lambda: serves(port))

    async def restarted() -> bool:
        return (await tenant.inspect("web"))["RestartCount"] > 0

    await until(restarted)
    await until(lambda: serves(port))
