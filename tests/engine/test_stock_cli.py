"""The stock docker CLI through the gate on a real engine: what an ordinary user does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from hostlab import Lab

from .conftest import Tenant


async def test_run_shows_output_and_exit_code(ours: Tenant) -> None:
    out, err = await ours.split(
        "run", "--rm", *ours.with_image("IMAGE", "sh", "-c", "echo out; echo err >&2; exit 7"), code=7
    )
    assert (out, err) == (b"out\n", b"err\n")


async def test_stdin_ends_and_the_answer_still_comes(ours: Tenant) -> None:
    out, _ = await ours.split(
        "run", "--rm", "-i", *ours.with_image("IMAGE", "sha256sum"), stdin=b"x" * 300_000
    )
    assert out.split()[0].decode() == hashlib.sha256(b"x" * 300_000).hexdigest()


@pytest.mark.both_engines
async def test_a_container_from_start_to_end(ours: Tenant) -> None:
    id = await ours.run(
        "--name", "web", "-e", "WHO=me", "-l", "a=b", "IMAGE", "sh", "-c", "echo $WHO; sleep 100"
    )
    assert (await ours.docker("ps", "--format", "{{.Names}} {{.ID}}")) == f"web {id[:12]}"
    assert await ours.docker("logs", "web") == "me"
    assert await ours.docker("exec", "-i", "web", "cat", stdin=b"hello") == "hello"
    await ours.docker("exec", "web", "sh", "-c", "exit 3", code=3)
    assert "sleep" in await ours.docker("top", "web")
    assert '"a":"b"' in await ours.docker("inspect", "-f", "{{json .Config.Labels}}", "web")
    await ours.docker("rename", "web", "front")
    await ours.docker("pause", "front")
    await ours.docker("unpause", id[:10])
    await ours.docker("restart", "-t", "0", "front")
    await ours.docker("kill", "front")
    assert await ours.docker("wait", "front") == "137"
    assert await ours.docker("ps", "-q") == ""
    await ours.docker("rm", "front")
    assert await ours.docker("ps", "-aq") == ""


async def test_wait_answers_when_the_container_ends(ours: Tenant) -> None:
    await ours.run("--name", "short", "IMAGE", "sh", "-c", "sleep 1; exit 5")
    assert await ours.docker("wait", "short") == "5"


async def test_twenty_megabytes_both_ways_through_exec(ours: Tenant) -> None:
    await ours.run("--name", "pipe", "IMAGE", "sleep", "100")
    sent = os.urandom(20 << 20)
    out, _ = await ours.split("exec", "-i", "pipe", "cat", stdin=sent)
    assert out == sent


async def test_cp_goes_both_ways(ours: Tenant, folder: Path) -> None:
    await ours.run("--name", "box", "IMAGE", "sleep", "100")
    (folder / "there").write_bytes(os.urandom(3 << 20))
    await ours.docker("cp", str(folder / "there"), "box:/tmp/file")
    await ours.docker("cp", "box:/tmp/file", str(folder / "back"))
    assert (folder / "back").read_bytes() == (folder / "there").read_bytes()


async def test_cp_cannot_leave_the_container(ours: Tenant, folder: Path) -> None:
    """The engine resolves paths and links below the container's root."""
    await ours.run("--name", "box", "IMAGE", "sh", "-c", "ln -s /../../../../../../etc /out; sleep 100")
    await ours.docker("cp", "box:/out/../../../../etc/hostname", str(folder / "name"))
    assert (folder / "name").read_text().strip() == (await ours.docker("exec", "box", "hostname"))
    secret = folder / "secret"
    secret.write_text("provider's")
    await ours.refused("cp", f"box:{secret}", str(folder / "stolen"))
    await ours.refused("cp", f"box:../../../../../..{secret}", str(folder / "stolen"))


async def test_logs_follow_and_attach_and_events_come_at_once(ours: Tenant) -> None:
    shown = ("--filter", "type=container", "--format", "{{.Action}} {{.Actor.Attributes.name}}")
    events = await ours.start("events", "--since", str(int(time.time())), *shown)
    await ours.run("--name", "talk", "-i", "IMAGE", "sh", "-c", "while read line; do echo got $line; done")
    logs = await ours.start("logs", "-f", "talk")
    attached = await ours.start("attach", "--no-stdin", "talk")
    assert events.stdout
    typist = await ours.start("attach", "talk")
    typing = asyncio.create_task(type_again_and_again(typist))
    for process in (typist, logs, attached):
        assert process.stdout
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"got one\n"
    assert await asyncio.wait_for(events.stdout.readline(), 60) == b"create talk\n"
    typing.cancel()
    for process in (events, logs, attached, typist):
        process.kill()
        await process.communicate()
    # "attach --no-stdin" had ended its own direction long before: that it left shows at the next output
    await ours.docker("kill", "talk")
    await ours.quiet()  # no endless request outlives both ends


async def type_again_and_again(typist: asyncio.subprocess.Process) -> None:
    """Who attaches a moment later is shown only what comes after that."""
    assert typist.stdin
    while True:
        typist.stdin.write(b"one\n")
        await typist.stdin.drain()
        await asyncio.sleep(0.2)


async def test_stats_tell_the_tenants_name(ours: Tenant) -> None:
    await ours.run("--name", "web", "IMAGE", "sleep", "100")
    line = await ours.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}")
    assert line.startswith("web ")
    assert line.endswith("256MiB")


@pytest.mark.both_engines
async def test_volumes_are_the_rooms_and_start_with_the_images_files(ours: Tenant, lab: Lab) -> None:
    """/data of the image belongs to user 1000: a new volume there takes that over, as in Docker."""
    await ours.docker("volume", "create", "--label", "x=y", "store")
    look = "stat -c %u /data; echo kept >/data/file; df -m /data | tail -1"
    out = await ours.docker("run", "--rm", "-v", "store:/data", *ours.with_image("IMAGE", "sh", "-c", look))
    owner, line = out.splitlines()
    assert owner == "1000"
    assert int(line.split()[1]) <= 128  # a quarter of the lease's disk
    read = ("run", "--rm", "-v", "store:/data:ro", *ours.with_image("IMAGE", "cat", "/data/file"))
    assert await ours.docker(*read) == "kept"
    shown = json.loads(await ours.docker("volume", "inspect", "store"))[0]
    assert (shown["Name"], shown["Labels"], shown["Options"]) == ("store", {"x": "y"}, None)
    await ours.docker("volume", "rm", "store")
    assert await ours.docker("volume", "ls", "-q") == ""
    assert lab.docker("volume", "ls", "-q") == ""


async def test_a_volume_is_full_when_its_size_is(ours: Tenant) -> None:
    await ours.docker("volume", "create", "-o", "size=16m", "small")
    full = ("dd", "if=/dev/zero", "of=/v/x", "bs=1M", "count=30")
    assert "No space left" in await ours.docker(
        "run", "--rm", "-v", "small:/v", *ours.with_image("IMAGE", *full), code=1
    )
    assert "no room" in await ours.refused("volume", "create", "-o", "size=2g", "large")


async def test_anonymous_volumes_go_with_their_container(ours: Tenant) -> None:
    id = await ours.run("-v", "/scratch", "IMAGE", "sleep", "100")
    assert (await ours.docker("volume", "ls", "-q")).startswith("anonymous-")
    assert "in use" in await ours.refused("volume", "rm", await ours.docker("volume", "ls", "-q"))
    await ours.docker("rm", "-f", "-v", id)
    assert await ours.docker("volume", "ls", "-q") == ""


async def test_containers_of_a_network_find_each_other_by_name(ours: Tenant) -> None:
    await ours.docker("network", "create", "back")
    await ours.run("--name", "db", "--network", "back", "--network-alias", "store", "IMAGE", "sleep", "100")
    ping = "for n in db store; do nslookup $n 127.0.0.11 >/dev/null && echo $n; done"
    out = await ours.docker("run", "--rm", "--network", "back", *ours.with_image("IMAGE", "sh", "-c", ping))
    assert out.split() == ["db", "store"]
    shown = json.loads(await ours.docker("network", "inspect", "back"))[0]
    assert [each["Name"] for each in shown["Containers"].values()] == ["db"]
    assert await ours.docker("network", "ls", "--format", "{{.Name}}") == "back\nbridge"
    await ours.docker("network", "connect", "bridge", "db")
    await ours.docker("network", "disconnect", "back", "db")
    await ours.docker("network", "rm", "back")
    assert await ours.docker("network", "prune", "-f") == ""
    assert await ours.docker("network", "ls", "--format", "{{.Name}}") == "bridge"


@pytest.mark.both_engines
async def test_several_networks_at_creation(ours: Tenant) -> None:
    for name in ("one", "two"):
        await ours.docker("network", "create", name)
    await ours.docker(
        "create", "--name", "both", "--network", "one", "--network", "two", *ours.with_image("IMAGE")
    )
    found = json.loads(await ours.docker("inspect", "both"))[0]["NetworkSettings"]["Networks"]
    assert sorted(found) == ["one", "two"]
    assert found["two"]["Aliases"][0] == "both"


async def test_a_containers_network_can_be_shared_within_the_lease(ours: Tenant) -> None:
    await ours.run("--name", "main", "IMAGE", "sleep", "100")
    side = await ours.docker(
        "run", "--rm", "--network", "container:main", *ours.with_image("IMAGE", "hostname")
    )
    assert side == await ours.docker("exec", "main", "hostname")


async def test_prune_and_filters(ours: Tenant) -> None:
    await ours.docker("create", "--name", "web-1", "-l", "role=web", *ours.with_image("IMAGE"))
    await ours.docker("create", "--name", "db-1", *ours.with_image("IMAGE"))
    names = ("ps", "-a", "--format", "{{.Names}}", "--filter")
    assert await ours.docker(*names, "label=role=web") == "web-1"
    assert await ours.docker(*names, "name=^db-1$") == "db-1"
    assert await ours.docker(*names, "name=1") == "db-1\nweb-1"
    await ours.docker("container", "prune", "-f", "--filter", "label=role=web")
    assert await ours.docker(*names, "status=created") == "db-1"


async def test_limits_bind_and_can_be_changed_within_the_lease(ours: Tenant) -> None:
    await ours.run("--name", "small", "-m", "64m", "--cpus", "0.5", "IMAGE", "sleep", "100")
    await ours.docker("update", "-m", "128m", "--memory-swap", "128m", "small")
    assert await ours.docker("inspect", "-f", "{{.HostConfig.Memory}}", "small") == str(128 << 20)
    assert "more than the lease's" in await ours.refused("update", "-m", "1g", "--memory-swap", "1g", "small")
    assert "more than the lease's" in await ours.refused("run", "-m", "1g", ours.image)
    assert "more than the lease's" in await ours.refused("run", "--cpus", "1.5", ours.image)


@pytest.mark.both_engines
async def test_the_image_is_known_by_id_and_can_be_given_back(ours: Tenant, theirs: Tenant) -> None:
    assert json.loads(await ours.docker("image", "inspect", ours.image))[0]["RepoTags"] == []
    assert await ours.docker("images", "-q", "--no-trunc") == ours.image
    await ours.docker("rmi", ours.image)
    assert await ours.docker("images", "-q") == ""
    assert "No such image" in await ours.refused("create", ours.image)
    assert await theirs.docker("images", "-q", "--no-trunc") == theirs.image
