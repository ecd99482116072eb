"""What a stranger's container can reach. Each refusal is first shown to be the wall's work: without it, it goes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from dockage.adapters.host import DockerHost, firewall, names
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from hostlab import IMAGE, Lab, run, until

LIMITS = Resources(cpu_milli=1000, memory_bytes=64 * MIB, disk_bytes=64 * MIB)
Leases = Callable[[int], LeaseId]
PUBLIC, OURS_PUBLIC = "203.0.113.2", "198.51.100.1"
PUBLIC6 = "2001:db8:1::2"
INTERNET = "the internet"
"""On the internet: behind the router, of which the machine is a neighbour."""
FORBIDDEN = {
    "the provider's LAN": ("192.168.77.2", 80),
    "a neighbour with a public address": ("198.51.100.2", 80),
    "a network that the machine has a route to": ("192.0.2.2", 80),
    "cloud metadata": ("169.254.169.254", 80),
    "the carrier's network": ("100.64.7.7", 80),
    "a mail server": (PUBLIC, 25),
    "the machine's public address": (OURS_PUBLIC, 80),
}


def answer(server: socket.socket) -> None:
    """Reads all of a caller's bytes, says ``ok``."""
    with contextlib.suppress(OSError):
        while True:
            caller, _ = server.accept()
            with caller, contextlib.suppress(OSError):
                caller.settimeout(3)  # of one whose end was dropped on the way
                while caller.recv(1 << 16):
                    pass
                caller.sendall(b"ok")


@contextlib.contextmanager
def serving(*ports: int) -> Iterator[None]:
    """On all addresses of the namespace that we are in now; sockets stay in it."""
    with contextlib.ExitStack() as undo:
        for port in ports:
            server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            thread = threading.Thread(target=answer, args=(server,))
            thread.start()
            undo.callback(thread.join)
            undo.callback(server.close)
            undo.callback(server.shutdown, socket.SHUT_RDWR)
        yield


@pytest.fixture
def outside(lab: Lab) -> Iterator[None]:
    """The rest of the world, one cable away: an internet server, a LAN neighbour, the metadata service."""
    world = Lab.__new__(Lab)
    world.name = lab.name + "w"
    run("ip", "netns", "add", world.name)
    try:
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", world.name)
        run("sysctl", "-qw", "net.ipv6.conf.up0.disable_ipv6=0")
        ours = (OURS_PUBLIC + "/24", "192.168.77.1/24", "169.254.0.1/16", "100.64.7.1/24")
        for address in (*ours, "2001:db8:2::1/64", "fd00:77::1/64"):
            run("ip", "address", "add", address, "dev", "up0", *(["nodad"] if "::" in address else []))
        run("ip", "link", "set", "up0", "up")
        run("ip", "route", "add", "default", "via", "198.51.100.2")
        run("ip", "route", "add", "192.0.2.0/24", "via", "192.168.77.2")
        run("ip", "-6", "route", "add", "default", "via", "2001:db8:2::2")
        for link in ("lo", "eth0"):
            run("ip", "-n", world.name, "link", "set", link, "up")
        theirs = ("198.51.100.2/24", "192.168.77.2/24", "169.254.169.254/16", "100.64.7.7/24")
        for address in (
            *theirs,
            PUBLIC + "/32",
            "192.0.2.2/32",
            "2001:db8:2::2/64",
            "fd00:77::2/64",
            PUBLIC6 + "/128",
        ):
            nodad = ["nodad"] if "::" in address else []
            run("ip", "-n", world.name, "address", "add", address, "dev", "eth0", *nodad)
        for number in (1, 2):
            run("ip", "-n", world.name, "-6", "route", "add", f"fd77:{number}::/64", "via", "2001:db8:2::1")
        with contextlib.ExitStack() as servers:
            with world.inside():
                servers.enter_context(serving(80, 25))
            servers.enter_context(serving(80, 9999))  # the provider's own services
            yield
    finally:
        run("ip", "link", "del", "up0", check=False)  # the kernel takes its time with the namespace's own end
        run("ip", "netns", "del", world.name)


@pytest.fixture
async def unwalled(lab: Lab, home: Path) -> AsyncIterator[DockerHost]:
    host = DockerHost(lab.socket, home / "unwalled", "run-1", firewall=False)
    await host.start()
    yield host
    for lease in await host.present():
        await host.teardown(lease)
    await host.close()


def reaches(lab: Lab, container: str, address: str, port: int, text: str = "hello") -> bool:
    command = ("exec", "-i", container, "nc", "-w", "2", address, str(port))
    return lab.docker(*command, text=text, check=False) == "ok"


def gateway(lab: Lab, container: str) -> str:
    return lab.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", container)


@pytest.mark.usefixtures("outside")
async def test_only_the_internet_and_the_own_lease_can_be_reached(
    lab: Lab, host: DockerHost, unwalled: DockerHost, lease_of: Leases
) -> None:
    walled, open_ = lease_of(1), lease_of(2)
    await host.prepare(walled, LIMITS)
    await unwalled.prepare(open_, LIMITS)
    inside = lab.run(walled, "-d", IMAGE, "sleep", "100")
    control = lab.run(open_, "-d", IMAGE, "sleep", "100")
    neighbour = lab.run(walled, "-d", IMAGE, "nc", "-ll", "-p", "80", "-e", "echo", "ok")

    assert reaches(lab, inside, PUBLIC, 80)
    assert reaches(lab, inside, lab.address(neighbour), 80)
    for what, (address, port) in FORBIDDEN.items():
        assert reaches(lab, control, address, port), f"{what}: the test itself is broken"
        assert not reaches(lab, inside, address, port), what
    assert reaches(lab, control, gateway(lab, control), 9999), "the test itself is broken"
    assert not reaches(lab, inside, gateway(lab, inside), 9999)


@pytest.mark.usefixtures("outside")
async def test_no_lease_reaches_another_nor_is_reached_from_the_lan(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    """Also with the engine's own isolation out of the way, which another engine on the machine may undo."""
    for number in (1, 2):
        await host.prepare(lease_of(number), LIMITS)
    inside = lab.run(lease_of(1), "-d", IMAGE, "sleep", "100")
    other = lab.run(lease_of(2), "-d", IMAGE, "nc", "-ll", "-p", "80", "-e", "echo", "ok")
    run("iptables", "-I", "FORWARD", "-j", "ACCEPT")
    try:
        assert reaches(lab, inside, lab.address(other), 80), "the test itself is broken"
    finally:
        run("iptables", "-D", "FORWARD", "-j", "ACCEPT")
    run("iptables", "-I", "DOCKER-ISOLATION-STAGE-1", "-j", "ACCEPT")
    try:
        assert not reaches(lab, inside, lab.address(other), 80)
    finally:
        run("iptables", "-D", "DOCKER-ISOLATION-STAGE-1", "-j", "ACCEPT")


@pytest.mark.usefixtures("outside")
async def test_further_networks_of_a_lease_are_behind_the_same_wall(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    options = [f"--opt={key}={value}" for key, value in host.network_options(lease, 7).items()]
    lab.docker("network", "create", *options, "--label", f"dockage.lease={lease.hex()}", "further")
    inside = lab.run(lease, "-d", "--network", "further", IMAGE, "sleep", "100")
    assert reaches(lab, inside, PUBLIC, 80)
    assert not reaches(lab, inside, *FORBIDDEN["the provider's LAN"])
    assert not reaches(lab, inside, gateway(lab, inside), 9999)


@pytest.mark.usefixtures("outside")
async def test_what_is_sent_is_counted_by_where_it_goes_and_outlives_the_container(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    lease, other = lease_of(1), lease_of(2)
    for each in (lease, other):
        await host.prepare(each, LIMITS)
    inside = lab.run(lease, "-d", IMAGE, "sleep", "100")
    friend = lab.run(lease, "-d", IMAGE, "nc", "-l", "-p", "80", "-e", "sh", "-c", "cat >/taken")
    reaches(lab, inside, lab.address(friend), 80, "x" * 300_000)
    before = await host.read(lease)
    assert before.internet_out_bytes == 0
    assert 300_000 <= before.replica_out_bytes <= 375_000  # with the heads of what is acknowledged
    assert reaches(lab, inside, PUBLIC, 80, "x" * 300_000)
    lab.docker("rm", "-f", inside, friend)
    host._firewall.look_again()
    after = await host.read(lease)
    assert 300_000 <= after.internet_out_bytes <= 330_000
    assert after.replica_out_bytes == before.replica_out_bytes
    await host.prepare(lease, LIMITS)
    host._firewall.look_again()
    again = await host.read(lease)
    assert (again.internet_out_bytes, again.replica_out_bytes) == (
        after.internet_out_bytes,
        after.replica_out_bytes,
    )
    nothing = await host.read(other)
    assert (nothing.internet_out_bytes, nothing.replica_out_bytes) == (0, 0)


@pytest.mark.usefixtures("outside")
async def test_a_container_has_so_many_connections_and_no_more(
    lab: Lab, host: DockerHost, lease_of: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewall, "CONNECTIONS_MAX", 3)
    await host.prepare(lease_of(1), LIMITS)
    many = f"for i in 1 2 3 4 5; do (sleep 1 | nc -w 2 {PUBLIC} 80) & done; wait"
    assert lab.run(lease_of(1), "--rm", IMAGE, "sh", "-c", many).count("ok") == 3


@pytest.mark.usefixtures("outside")
async def test_rules_that_somebody_swept_away_come_back(lab: Lab, host: DockerHost, lease_of: Leases) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    inside = lab.run(lease, "-d", IMAGE, "sleep", "100")
    for chain in ("DOCKER-USER", "INPUT"):
        run("iptables", "-F", chain)
    run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")  # the engine's own: back only with its next network
    assert reaches(lab, inside, gateway(lab, inside), 9999)
    host._firewall._counted_at = float("-inf")
    await host.read(lease)
    assert not reaches(lab, inside, gateway(lab, inside), 9999)
    assert not reaches(lab, inside, *FORBIDDEN["the provider's LAN"])


@pytest.mark.usefixtures("outside")
async def test_ipv6_is_no_way_around(
    lab: Lab, host: DockerHost, unwalled: DockerHost, lease_of: Leases
) -> None:
    """Leases have no IPv6; suppose that an engine or a kernel gave it to them all the same."""
    run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    aims = {
        INTERNET: (PUBLIC6, 80),
        "the gateway's own address": ("GATEWAY", 9999),
        "the machine's public address": ("2001:db8:2::1", 9999),
        "a private neighbour": ("fd00:77::2", 80),
        "a neighbour with a public address": ("2001:db8:2::2", 80),
        "a mail server": (PUBLIC6, 25),
    }
    reached: dict[int, set[str]] = {}
    for number, each in ((1, host), (2, unwalled)):
        lease = lease_of(number)
        await each.prepare(lease, LIMITS)
        inside = six_inside(lab, each, lease, number)
        open_ = set(aims) if each is unwalled else {INTERNET}
        reached[number] = {
            what
            for what, (address, port) in aims.items()
            if any(
                reaches(lab, inside, address.replace("GATEWAY", f"fd77:{number}::1"), port)
                for _ in range(5 if what in open_ else 1)  # a busy machine is slow to find neighbours
            )
        }
    assert reached[2] == set(aims), "the test itself is broken"
    assert reached[1] == {INTERNET}


def six_inside(lab: Lab, host: DockerHost, lease: LeaseId, number: int) -> str:
    """A container with an IPv6 address and a way out."""
    bridge = names.bridge(lease, 0)
    run("sysctl", "-qw", f"net.ipv6.conf.{bridge}.disable_ipv6=0")
    inside = lab.run(lease, "-d", "--sysctl", "net.ipv6.conf.all.disable_ipv6=0", IMAGE, "sleep", "100")
    run("ip", "address", "add", f"fd77:{number}::1/64", "nodad", "dev", bridge)
    pid = lab.docker("inspect", "-f", "{{.State.Pid}}", inside)
    enter = ("nsenter", "-t", pid, "-n", "ip")
    run(*enter, "address", "add", f"fd77:{number}::2/64", "nodad", "dev", "eth0")
    run(*enter, "-6", "route", "add", "default", "via", f"fd77:{number}::1")
    return inside


@pytest.mark.usefixtures("outside")
async def test_when_the_machine_comes_to_another_network_the_walls_follow(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    inside = lab.run(lease, "-d", IMAGE, "sleep", "100")
    assert reaches(lab, inside, PUBLIC, 80, "x" * 10_000)
    host._firewall.look_again()
    before = (await host.read(lease)).internet_out_bytes
    assert before > 10_000
    run("ip", "address", "add", "203.0.113.1/24", "dev", "up0")
    host._firewall.look_again()
    assert (await host.read(lease)).internet_out_bytes >= before, "what was counted stays"
    assert not reaches(lab, inside, PUBLIC, 80)
    run("ip", "address", "del", "203.0.113.1/24", "dev", "up0")
    host._firewall.look_again()
    await host.read(lease)
    assert reaches(lab, inside, PUBLIC, 80)


@pytest.mark.usefixtures("outside")
async def test_new_flows_and_bytes_have_a_pace(
    lab: Lab, host: DockerHost, lease_of: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewall, "NEW_PER_SECOND", 1)
    monkeypatch.setattr(firewall, "NEW_BURST", 4)
    monkeypatch.setattr(firewall, "RATE", "40kb/s")
    monkeypatch.setattr(firewall, "BURST", "80kb")
    scanner, sender = lease_of(1), lease_of(2)
    for lease in (scanner, sender):
        await host.prepare(lease, LIMITS)
    many = f"for i in 1 2 3 4 5 6 7 8 9; do (echo x | nc -w 1 {PUBLIC} 80) & done; wait"
    assert 1 <= lab.run(scanner, "--rm", IMAGE, "sh", "-c", many).count("ok") <= 6
    lab.run(sender, "-d", IMAGE, "sh", "-c", f"dd if=/dev/zero bs=1M count=2 | nc -w 1 {PUBLIC} 80")

    async def some_dropped() -> bool:
        rules = run("iptables", "-nvxL", names.chain_forward(sender)).splitlines()
        dropped = [int(rule.split()[1]) for rule in rules if "limit: above 40kb/s" in rule]
        return dropped[0] > 100_000

    await until(some_dropped)
