"""Two leases on one engine: neither finds the other, and neither finds a way out, with the real parts."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from dockage.protocol.images import lease_tag
from dockage.wire.http import HttpClient
from dockage.wire.splice import SocketStream
from hostlab import Lab

from .conftest import Tenant


async def ask(tenant: Tenant, method: str, path: str, body: object = None) -> tuple[int, object]:
    """One raw request, past every check that the CLI makes."""
    stream = SocketStream(*await asyncio.open_unix_connection(str(tenant.socket)))
    try:
        kind = [("content-type", "application/json")] if body is not None else []
        response = await HttpClient(stream).request(
            method, path, kind, None if body is None else json.dumps(body).encode()
        )
        found = await response.read_body()
        return response.status, json.loads(found) if found.strip() else None
    finally:
        stream.abort()


async def sent(tenant: Tenant, data: bytes) -> bytes:
    """All that comes back until the gate closes."""
    reader, writer = await asyncio.open_unix_connection(str(tenant.socket))
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_two_leases_do_not_see_each_other(ours: Tenant, theirs: Tenant) -> None:
    id = await theirs.run("--name", "web", "-v", "store:/data", "IMAGE", "sleep", "100")
    await theirs.docker("network", "create", "back")
    execution = (await ask(theirs, "POST", f"/containers/{id}/exec", {"Cmd": ["id"]}))[1]
    network = await theirs.docker("network", "inspect", "-f", "{{.Id}}", "back")
    assert isinstance(execution, dict)
    assert await ours.docker("ps", "-aq") == ""
    assert await ours.docker("volume", "ls", "-q") == ""
    assert await ours.docker("network", "ls", "--format", "{{.Name}}") == "bridge"
    for reference in (id, id[:12], "web", f"dkg-{theirs.lease.hex()[:12]}-web"):
        for method, path in (
            ("GET", "json"), ("GET", "logs?stdout=1"), ("POST", "start"), ("POST", "attach?stream=1&stdout=1"),
            ("GET", "archive?path=/"), ("HEAD", "archive?path=/"), ("PUT", "archive?path=/"), ("GET", "stats"),
            ("POST", "kill"), ("GET", "top"), ("POST", "wait"), ("POST", "rename?name=x"), ("POST", "update"),
        ):  # fmt: skip
            assert (await ask(ours, method, f"/containers/{reference}/{path}"))[0] == 404, (method, path)
        assert (await ask(ours, "POST", f"/containers/{reference}/exec", {"Cmd": ["id"]}))[0] == 404
        assert (await ask(ours, "DELETE", f"/containers/{reference}?force=1"))[0] == 404
    for path in ("start", "resize?h=1&w=1"):
        assert (await ask(ours, "POST", f"/exec/{execution['Id']}/{path}"))[0] == 404
    assert (await ask(ours, "GET", f"/exec/{execution['Id']}/json"))[0] == 404
    assert (await ask(ours, "GET", f"/networks/{network}"))[0] == 404
    assert (await ask(ours, "DELETE", f"/networks/{network}"))[0] == 404
    assert (await ask(ours, "GET", "/volumes/store"))[0] == 404
    assert (await ask(ours, "DELETE", "/volumes/store"))[0] == 404
    assert await theirs.docker("ps", "--format", "{{.Names}}") == "web"


@pytest.mark.both_engines
async def test_another_leases_things_cannot_be_used_in_a_new_container(ours: Tenant, theirs: Tenant) -> None:
    id = await theirs.run("--name", "web", "IMAGE", "sleep", "100")
    await theirs.docker("network", "create", "back")
    network, default = [
        await theirs.docker("network", "inspect", "-f", "{{.Id}}", name) for name in ("back", "bridge")
    ]
    for wish in (
        {"NetworkMode": f"container:{id}"},
        {"PidMode": f"container:{id}"},
        {"IpcMode": f"container:{id}"},
        {"VolumesFrom": [id]},
        {"NetworkMode": network},
        {"NetworkMode": "back"},
        {"NetworkMode": default},
        {"NetworkMode": f"container:dkg-{theirs.lease.hex()[:12]}"},
    ):
        status, _ = await ask(ours, "POST", "/containers/create", {"Image": ours.image, "HostConfig": wish})
        assert status == 404, wish
    own = await ours.run("--name", "mine", "IMAGE", "sleep", "100")
    assert (await ask(ours, "POST", f"/networks/{network}/connect", {"Container": own}))[0] == 404
    assert (await ask(ours, "POST", "/networks/bridge/connect", {"Container": id}))[0] == 404


async def test_a_filter_cannot_name_another_lease(ours: Tenant, theirs: Tenant) -> None:
    await theirs.docker("create", "--name", "web", *theirs.with_image("IMAGE"))
    label = f"dockage.lease={theirs.lease.hex()}"
    for filters in ({"label": [label]}, {"label": {label: True}}, {"name": ["web"]}, {"id": [""]}):
        query = json.dumps(filters).replace(" ", "")
        assert (await ask(ours, "GET", f"/containers/json?all=1&filters={query}"))[1] == []
        assert (await ask(ours, "POST", f"/containers/prune?filters={query}"))[0] in (200, 400)
    await ours.docker("container", "prune", "-f")
    await ours.docker("volume", "prune", "-f")
    await ours.docker("network", "prune", "-f")
    assert await theirs.docker("ps", "-a", "--format", "{{.Names}}") == "web"


async def test_events_are_only_the_own_ones(ours: Tenant, theirs: Tenant) -> None:
    events = await ours.start("events", "--since", str(int(time.time())), "--format", "{{json .}}")
    assert events.stdout
    await theirs.docker("create", "--name", "theirs", *theirs.with_image("IMAGE"))
    await ours.docker("create", "--name", "mine", *ours.with_image("IMAGE"))
    found = json.loads(await asyncio.wait_for(events.stdout.readline(), 10))
    events.kill()
    await events.communicate()
    assert found["Actor"]["Attributes"]["name"] == "mine"
    assert "dockage.lease" not in found["Actor"]["Attributes"]


async def test_an_image_that_was_not_given_does_not_exist(ours: Tenant, lab: Lab) -> None:
    other = lab.docker("import", "-c", "CMD sh", "-", text="")
    for reference in (other, other[7:19], "dockage/base:bookworm", "nginx", ours.image[:17]):
        status, answer = await ask(ours, "POST", "/containers/create", {"Image": reference})
        assert (status, "No such image" in str(answer)) == (404, True), reference
    assert (await ask(ours, "GET", f"/images/{other}/json"))[0] == 404
    assert (await ask(ours, "DELETE", f"/images/{other}"))[0] == 404
    lab.docker("rmi", other)


@pytest.mark.both_engines
async def test_the_engine_made_what_the_filter_says(ours: Tenant, lab: Lab) -> None:
    id = await ours.run("--name", "web", "-p", "8080:80", "IMAGE", "sleep", "100")
    found = json.loads(lab.docker("inspect", id))[0]
    host = found["HostConfig"]
    assert found["Name"] == f"/dkg-{ours.lease.hex()[:12]}-web"
    assert host["CgroupParent"].endswith(ours.lease.hex())
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["PortBindings"] == {}
    assert (host["PidsLimit"], host["Memory"], host["NanoCpus"]) == (1024, 256 << 20, 10**9)
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "2"}
    shown = await ours.docker("inspect", "web")
    assert "/srv" not in shown
    assert "dockage/" not in shown
    assert "overlay2/" not in shown
    assert "dkg-" not in shown
    status = await ours.docker("exec", "web", "cat", "/proc/self/status")
    caps = int(next(line for line in status.splitlines() if line.startswith("CapBnd")).split()[1], 16)
    assert not caps & (1 << 21 | 1 << 13 | 1 << 27)  # SYS_ADMIN, NET_RAW, MKNOD
    assert "NoNewPrivs:\t1" in status
    assert ours.lease.hex() not in await ours.docker("exec", "web", "cat", "/proc/self/cgroup")


async def test_an_images_own_volumes_are_inside_the_quota(ours: Tenant, lab: Lab) -> None:
    """And its labels cannot pose as the lease's."""
    layer = lab.docker("create", ours.image)
    change = ["-c", "VOLUME /var/store", "-c", f"LABEL dockage.lease={'f' * 32}"]
    image = lab.docker("commit", *change, layer)
    tag = lease_tag(ours.lease, image)
    lab.docker("tag", image, tag)
    await ours.docker("run", "-d", "--name", "db", image, "sleep", "100")
    mounts = json.loads(lab.docker("inspect", f"dkg-{ours.lease.hex()[:12]}-db"))[0]["Mounts"]
    [mount] = [each for each in mounts if each["Type"] == "volume"]
    device = json.loads(lab.docker("volume", "inspect", mount["Name"]))[0]["Options"]["device"]
    assert "dkh-home" in device
    assert await ours.docker("ps", "--format", "{{.Names}}") == "db"
    await ours.docker("rm", "-fv", "db")
    lab.docker("rm", layer)
    lab.docker("rmi", tag)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET ",
        b"GET /containers/json HTTP/1.1\r\nHost: d\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"GET /containers/json HTTP/1.1\r\nHost: d\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_an_ambiguous_request_is_answered_400_and_the_stream_ends(ours: Tenant, head: bytes) -> None:
    answer = await sent(ours, head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_body_without_end_is_refused(ours: Tenant) -> None:
    status, answer = await ask(ours, "POST", "/containers/create", {"Image": "x" * (2 << 20)})
    assert (status, "more than" in str(answer)) == (400, True)


async def test_a_second_request_in_one_piece_is_a_second_request(ours: Tenant) -> None:
    """The refused first one does not take the second along, and both are checked."""
    last = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    answer = await sent(ours, b"GET /info HTTP/1.1\r\nHost: d\r\n\r\n" + last)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"HTTP/1.1 200 OK" in answer


async def test_an_exec_from_before_a_restart_is_still_ours(ours: Tenant) -> None:
    """The gate writes nothing down: the engine knows whose it is."""
    id = await ours.run("IMAGE", "sleep", "100")
    made = (await ask(ours, "POST", f"/containers/{id}/exec", {"Cmd": ["true"]}))[1]
    assert isinstance(made, dict)
    ours.gate.forget(ours.lease)
    assert (await ask(ours, "GET", f"/exec/{made['Id']}/json"))[0] == 200


async def test_no_engine_is_an_answer(ours: Tenant, lab: Lab, folder: Path) -> None:
    ours.gate._socket = folder / "nobody.sock"
    ours.gate._engine.path = folder / "nobody.sock"
    await ours.gate.close()
    status, answer = await ask(ours, "GET", "/containers/json")
    assert (status, "engine" in str(answer)) == (503, True)
    assert "nobody.sock" not in str(answer)


async def test_only_so_many_requests_at_a_time(ours: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockage.adapters.engine.gate.RUNNING_MAX", 1)
    stream = SocketStream(*await asyncio.open_unix_connection(str(ours.socket)))
    assert (await HttpClient(stream).request("GET", "/events")).status == 200
    assert (await ask(ours, "GET", "/containers/json"))[0] == 429
    stream.abort()
    await ours.quiet()
    assert (await ask(ours, "GET", "/containers/json"))[0] == 200


async def test_a_held_lease_can_be_looked_at_and_removed_but_not_thawed(
    ours: Tenant, theirs: Tenant, lab: Lab
) -> None:
    id = await ours.run("--name", "web", "IMAGE", "sleep", "100")
    lab.docker("pause", id)
    ours.gate.hold(ours.lease, "paused until it is paid")
    for refused in (("unpause", "web"), ("restart", "web"), ("exec", "web", "id"), ("run", ours.image)):
        assert "paused until it is paid" in await ours.refused(*refused)
    assert await ours.docker("ps", "--format", "{{.Names}}") == "web"
    assert (
        await theirs.docker("run", "--rm", *theirs.with_image("IMAGE", "echo", "others run")) == "others run"
    )
    ours.gate.release(ours.lease)
    await ours.docker("unpause", "web")
    ours.gate.hold(ours.lease, "paused until it is paid")
    await ours.docker("rm", "-f", "web")
