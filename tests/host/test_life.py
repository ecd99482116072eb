"""A lease comes and goes; afterwards the machine looks as before, whatever happened in between."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dockage.adapters.host import DockerHost, names
from dockage.adapters.host.guard import folder
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from hostlab import IMAGE, Lab, changes, run

LIMITS = Resources(cpu_milli=500, memory_bytes=64 * MIB, disk_bytes=256 * MIB)
Leases = Callable[[int], LeaseId]
FORGOTTEN = (
    ("filter", "FORWARD -i {0} ! -o {0} -m mark --mark 7 -j ACCEPT"),
    ("filter", "FORWARD -o {0} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
    ("nat", "POSTROUTING -s 203.0.113.0/24 ! -o {0} -j MASQUERADE"),
)
FOREIGN = ("FORWARD", "-i", "dk-ffffffff-0", "-j", "ACCEPT")


def iptables(*words: str) -> None:
    run("iptables", "-w", *words)


async def test_a_lease_leaves_no_trace(lab: Lab, host: DockerHost, lease_of: Leases) -> None:
    before = lab.traces()
    for number in (1, 2):
        lease = lease_of(number)
        await host.prepare(lease, LIMITS)
        await host.create_volume(lease, "data", 16 * MIB)
        lab.run(lease, "-d", "-v", f"{(await host.volumes(lease))['data']}:/data", IMAGE, "sleep", "100")
        lab.run(lease, "-d", "--restart", "always", IMAGE, "sleep", "0.2")
        lab.docker("volume", "create", "--label", f"dockage.lease={lease.hex()}", f"extra{number}")
        lab.docker("network", "create", "--label", f"dockage.lease={lease.hex()}", f"extra{number}")
    assert await host.present() == {lease_of(1), lease_of(2)}
    # an engine whose iptables failed it for a moment forgets rules of a bridge that it removes
    for table, rule in FORGOTTEN:
        iptables("-t", table, "-A", *rule.format(names.bridge(lease_of(1), 0)).split())
    iptables("-A", *FOREIGN)
    for number in (1, 2):
        await host.teardown(lease_of(number))
        await host.teardown(lease_of(number))
    assert await host.present() == set()
    iptables("-D", *FOREIGN)  # which is still there
    assert changes(before, lab.traces()) == []


async def test_preparing_again_changes_the_limits_and_nothing_else(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    before = lab.traces()
    await host.prepare(lease, LIMITS + LIMITS)
    assert changes(before, lab.traces()) == []
    group, shares = Path("/sys/fs/cgroup/memory/dockage") / lease.hex(), Path("/sys/fs/cgroup/cpu/dockage")
    assert int((group / "memory.limit_in_bytes").read_text()) == 128 * MIB
    await host.prepare(lease, LIMITS.reserving(500, 32 * MIB))
    assert int((group / "memory.limit_in_bytes").read_text()) == 64 * MIB
    assert int((group / "memory.soft_limit_in_bytes").read_text()) == 32 * MIB
    assert int((shares / lease.hex() / "cpu.shares").read_text()) == 512


async def test_a_new_daemon_finds_and_ends_what_a_crashed_one_left(
    lab: Lab, host: DockerHost, home: Path, lease_of: Leases
) -> None:
    """Half-way: the ledger entry is there, some parts are and some are not."""
    before = lab.traces()
    whole, half, bare = lease_of(1), lease_of(2), lease_of(3)
    await host.prepare(whole, LIMITS)
    await host.create_volume(whole, "data", 16 * MIB)
    lab.run(whole, "-d", IMAGE, "sleep", "100")
    await host.prepare(half, LIMITS)
    lab.docker("network", "rm", host.network(half))
    lab.run(half, "-d", "--network", "none", IMAGE, "sleep", "100")
    (home / "leases" / bare.hex()).mkdir()

    again = DockerHost(lab.socket, home, "run-2")
    await again.start()
    assert await again.present() == {whole, half, bare}
    reading = await again.read(whole)
    assert (reading.run, reading.containers) == ("run-2", 1)
    for lease in (whole, half, bare):
        await again.teardown(lease)
    await again.close()
    assert changes(before, lab.traces()) == []


async def test_a_crash_in_the_middle_of_a_teardown_is_finished_later(
    lab: Lab, host: DockerHost, lease_of: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, lease = lab.traces(), lease_of(1)
    await host.prepare(lease, LIMITS)
    await host.create_volume(lease, "data", 16 * MIB)

    async def stuck(_: LeaseId) -> None:
        raise Unavailable("test.crash", "the power went")

    with monkeypatch.context() as patch:
        patch.setattr(host._firewall, "remove", stuck)
        with pytest.raises(Unavailable):
            await host.teardown(lease)
    assert await host.present() == {lease}
    await host.teardown(lease)
    assert changes(before, lab.traces()) == []


async def test_while_the_engine_is_down_it_says_so_and_forgets_nothing(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    lab.stop_engine()
    try:
        for call in (host.facts(), host.pause(lease), host.teardown(lease), host.prepare(lease, LIMITS)):
            with pytest.raises(Unavailable, match="start it") as error:
                await call
            assert error.value.code == "engine.unreachable"
        assert (await host.read(lease)).containers == 0  # the meter needs no engine
    finally:
        lab.start_engine()
    assert await host.present() == {lease}
    await host.teardown(lease)
    assert await host.present() == set()


async def test_after_a_reboot_nothing_runs_before_its_walls_stand(
    lab: Lab, host: DockerHost, home: Path, lease_of: Leases
) -> None:
    """The engine comes up before us, and would start what has a restart policy."""
    before, lease = lab.traces(), lease_of(1)
    await host.prepare(lease, LIMITS)
    guard = ("--mount", f"type=bind,src={host.guard(lease)},dst=/sys/firmware,readonly")
    kept = lab.run(lease, "-d", "--restart", "always", *guard, IMAGE, "sleep", "100")
    ended = lab.run(lease, "-d", "--restart", "unless-stopped", *guard, IMAGE, "sleep", "100")
    lab.docker("stop", "-t", "0", ended)
    assert lab.docker("exec", kept, "ls", "-A", "/sys/firmware") == ""
    lab.stop_engine()
    os.rmdir(host.guard(lease))
    lab.start_engine()

    def runs(container: str) -> str:
        return lab.docker("inspect", "-f", "{{.State.Running}}", container)

    assert [runs(kept), runs(ended)] == ["false", "false"]
    assert host.guard(lease) in lab.docker_says("start", kept)
    again = DockerHost(lab.socket, home, "run-2")
    await again.start()
    await again.prepare(lease, LIMITS)
    assert [runs(kept), runs(ended)] == ["true", "false"]
    await again.teardown(lease)
    await again.close()
    assert host.guard(lease).rpartition("/")[2] == lease.hex()
    assert changes(before, lab.traces()) == []


def test_a_guard_lies_where_a_reboot_takes_it_along() -> None:
    line = "25 1 0:22 / {} rw,nosuid shared:5 - {} tmpfs rw\n"
    assert folder(line.format("/run", "tmpfs")) == Path("/run/dockage-leases")
    both = line.format("/run", "ext4") + line.format("/dev/shm", "tmpfs")
    assert folder(both) == Path("/dev/shm/dockage-leases")
    assert folder(line.format("/run", "ext4")) is None


async def test_two_leases_that_would_share_interface_names_are_told_apart(
    host: DockerHost, lease_of: Leases
) -> None:
    await host.prepare(lease_of(1), LIMITS)
    with pytest.raises(UsageError) as error:
        await host.prepare(LeaseId(lease_of(1)[:8] + b"another!"), LIMITS)
    assert error.value.code == "lease.collision"
    assert await host.present() == {lease_of(1)}


async def test_it_says_what_the_machine_is(host: DockerHost) -> None:
    facts = await host.facts()
    assert facts.engine_version.startswith("20.10") or int(facts.engine_version.split(".")[0]) > 20
    assert facts.cgroup_version in (1, 2)
    assert facts.capacity.cpu_milli >= 1000
    assert facts.capacity.disk_bytes > 0
    assert facts.warnings == ()
