"""Every request that clients of the Docker API make, asked of a plain dockerd and of the front, and compared.

The table reads as a conversation; what is meant to differ is written beside the request, or in ``APART`` if it
holds everywhere. A plain 20.10 stands on the other side: where engines since 25 (whose API we announce) answer
malformed requests with 400 instead of 500, so do we.
"""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any
from urllib.parse import quote

import pytest

from differential import Case, compared, play
from frontlab import Tenant
from hostlab import IMAGE, Lab

APART = (
    r"\$(\[\])?\.(Config\.)?Labels(\.dockage\..*)?",  # who the provider is, what it costs
    r"\$\.HostConfig\.(CapAdd|CapDrop|SecurityOpt|CgroupnsMode|PidsLimit|MemorySwap)",  # hardening
    r"\$\.HostConfig\.LogConfig\.Config\..*",
    r"\$\.(LogPath|HostnamePath|HostsPath|ResolvConfPath|GraphDriver\.Data)",  # paths of the provider's machine
    r"\$\.NetworkSettings\.Sandbox(ID|Key)",
    r"\$\.State\.Pid",
    r"\$\.SizeRw",  # the guard's mount point
    r"\$(\[\])?\..*\.IPPrefixLen",  # the lease's bridges are of another size
    r"\$\.NetworkSettings\.Networks\..*\.Aliases",  # by its own name a container is found on the lease's network too
    r"\$(\.Volumes\[\])?\.Mountpoint",
    r"\$(\[\])?\.Mounts\[\]\.Source",
    r"\$\.NEventsListener",  # fronts listen to the engine beside them
    r"\$\.BuilderSize",  # what earlier builds left on that engine
)
SMALL = {"Memory": 64 << 20, "NanoCpus": 500_000_000}
OLD = "engines before 23 call a malformed request a fault of theirs (500)"
UNKNOWN = (r"\$\.(ostype|docker-experimental)",)
"""Where there is no page, a plain engine forgets who it is."""
BY_ID = (r"\$\.message",)
"""The lease's engine names the container by its id where a plain one repeats the client's word."""


def box(command: str, host: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"Image": IMAGE, "Cmd": ["sh", "-c", command], "HostConfig": {**SMALL, **(host or {})}, **more}


def get(target: str, **more: Any) -> Case:
    return Case("GET", "/v1.41" + target, **more)


def post(target: str, body: Any = None, **more: Any) -> Case:
    return Case("POST", "/v1.41" + target, body, **more)


def delete(target: str, **more: Any) -> Case:
    return Case("DELETE", "/v1.41" + target, **more)


def listed(path: str, filters: Any, **more: Any) -> Case:
    return get(f"{path}&filters=" + quote(json.dumps(filters), safe="{}:"), **more)


def put(path: str, **more: Any) -> Case:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("f")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    target = "/v1.41/containers/box/archive" + path
    return Case("PUT", target, buffer.getvalue(), kind="application/x-tar", **more)


ABOUT = [
    Case("HEAD", "/_ping"),
    get("/_ping"),
    *(
        Case(*asked, apart=UNKNOWN)
        for asked in (("POST", "/_ping"), ("GET", "/v1.41/x"), ("PUT", "/containers/json"))
    ),
    get(
        "/version",
        apart=(
            r"\$\.(Components|Platform.*|Version|ApiVersion|MinAPIVersion|BuildTime|GitCommit|GoVersion)",
        ),
    ),
    get(
        "/info",
        apart=(
            r"\$\.(ContainerdCommit|RuncCommit|InitCommit).*",
            r"\$\.(DockerRootDir|ID|Name|OSVersion|OperatingSystem|ServerVersion|Runtimes\..*|CgroupVersion|KernelMemory.*)",
            r"\$\.(LiveRestoreEnabled|MemTotal|NFd|NGoroutines|OomKillDisable|SecurityOptions.*|SwapLimit|Default.*|CPUSet)",
        ),
    ),
    *(get(f"/{word}", apart=BY_ID) for word in ("swarm", "nodes", "services", "tasks", "secrets", "configs")),
    get("/plugins"),
    post("/commit?container=nobody", {}),
    get("/events?since=0&until=1"),
    get("/events?until=x", status=400, why=OLD),
]
CREATE = [
    post("/containers/create?name=bad", b"{", status=400, why=OLD),
    post("/containers/create?name=bad", b"{}"),
    post("/containers/create?name=bad", b"", status=400, why=OLD),
    post("/containers/create?name=bad", {"Cmd": ["x"]}, status=404, why="there is nothing to send"),
    delete("/containers/bad", status=404, why="see above"),
    post("/containers/create?name=bad", box("x"), kind="text/plain", apart=(r"\$\.message",)),
    post("/containers/create?name=bad", {"Image": "nobody/nothing", "Cmd": ["x"]}),
    post("/containers/create?name=bad", {"Image": "UPPER", "Cmd": ["x"]}),
    post("/containers/create?name=-bad", box("x")),
    post("/containers/create?name=x", box("x")),
    post(
        "/containers/create?name=bad", box("x", {"RestartPolicy": {"Name": "some"}}), apart=(r"\$\.message",)
    ),
    post("/containers/create?name=bad", box("x", {"AutoRemove": True, "RestartPolicy": {"Name": "always"}})),
    post("/containers/create?name=box", box("sleep 60", Labels={"k": "v"}), save="box"),
    post("/containers/create?name=box", box("x")),
    get("/containers/box/json"),
    get("/containers/{box:12}/json"),
    get("/containers/{box}/json?size=1"),
    get("/containers/nobody/json"),
    get("/containers/json?all=1"),
    get("/containers/json"),
    get("/containers/box/logs?stdout=1"),
    get("/containers/box/top"),
    get("/containers/box/changes"),
    get("/containers/box/stats?stream=0"),
    post("/containers/box/stop"),
    post("/containers/box/kill", apart=BY_ID),
    post("/containers/box/pause"),
    post("/containers/box/unpause"),
    post("/containers/box/resize?h=10&w=20"),
    post("/containers/box/exec", {"Cmd": ["true"]}),
    post("/containers/box/rename?name=bx"),
    post("/containers/bx/rename?name=bx"),
    post("/containers/bx/rename?name="),
    post("/containers/bx/rename?name=-x", apart=(r"\$\.message",)),
    post("/containers/nobody/rename?name=xx"),
    post("/containers/bx/rename?name=box"),
    post("/containers/box/update", {"Memory": 96 << 20, "MemorySwap": 96 << 20}),
    post("/containers/box/update", {"Memory": 1}, apart=(r"\$\.message",)),
    post("/containers/box/update", {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}),
    post("/containers/nobody/update", {}),
    get("/containers/box/json"),
    delete("/containers/box"),
    delete("/containers/box"),
]
RUNNING = [
    post(
        "/containers/create?name=box",
        box("echo out; sleep 0.2; echo err >&2; sleep 60", Labels={"k": "v"}),
        save="box",
    ),
    post("/containers/nobody/start"),
    post("/containers/box/start"),
    post("/containers/box/start"),
    get("/containers/box/json"),
    get("/containers/json"),
    get("/containers/json?limit=1"),
    get("/containers/json?limit=x", status=400, why=OLD),
    get("/containers/json?filters=x", status=400, why=OLD),
    listed("/containers/json?", {"label": ["k=v"]}),
    listed("/containers/json?", {"label": {"k=v": True}}),
    listed("/containers/json?", {"label": ["k=w"]}),
    listed("/containers/json?", {"name": ["bo"]}),
    listed("/containers/json?", {"name": ["^/box$"]}),
    listed("/containers/json?", {"id": ["{box:12}"]}),
    listed("/containers/json?", {"status": ["exited"]}),
    listed("/containers/json?", {"status": ["nonsense"]}, apart=(r"\$\.message",)),
    listed("/containers/json?", {"health": ["none"]}),
    listed("/containers/json?", {"ancestor": [IMAGE]}),
    listed("/containers/json?", {"exited": ["x"]}, status=400, why=OLD),
    listed("/containers/json?", {"nonsense": ["x"]}, apart=(r"\$\.message",)),
    listed("/containers/json?", {"before": ["nobody"]}, status=404, why=OLD),
    get("/containers/box/top", apart=(r"\$\.Processes.*",)),
    get("/containers/box/top?ps_args=aux", apart=(r"\$\.Processes.*",)),
    get("/containers/box/logs"),
    get("/containers/box/logs?stdout=1&stderr=1", after=1.0),
    get("/containers/box/logs?stdout=1&stderr=1&tail=1"),
    get("/containers/box/logs?stdout=1&tail=0"),
    get("/containers/box/logs?stdout=1&since=1"),
    get("/containers/box/logs?stdout=1&until=1"),
    get("/containers/box/logs?stdout=1&timestamps=1", apart=(r"\$",)),
    get("/containers/box/logs?stdout=1&since=x"),
    get("/containers/nobody/logs?stdout=1"),
    get("/containers/nobody/stats"),
    post("/containers/box/resize?h=10&w=20"),
    post("/containers/box/resize"),
    post("/containers/box/resize?h=x&w=1"),
    post("/containers/nobody/resize?h=1&w=1"),
    post("/containers/box/pause"),
    post("/containers/box/pause"),
    post("/containers/box/exec", {"Cmd": ["true"]}, apart=BY_ID),
    get("/containers/box/json"),
    post("/containers/box/unpause"),
    post("/containers/box/unpause"),
    post("/containers/box/kill?signal=NONSENSE"),
    post("/containers/box/kill?signal=0"),
    post("/containers/nobody/kill", apart=BY_ID),
    delete("/containers/box"),
    post("/containers/box/wait?condition=nonsense"),
    post("/containers/nobody/wait"),
    post("/containers/nobody/restart"),
    post("/containers/nobody/stop"),
    post("/containers/box/stop?t=x", status=400, why=OLD),
    post("/containers/box/restart?t=0"),
    post("/containers/box/stop?t=0"),
    post("/containers/box/stop?t=0"),
    post("/containers/box/wait"),
    post("/containers/box/wait?condition=not-running"),
    get("/containers/box/json"),
    listed("/containers/json?all=1", {"exited": ["137"]}),
    delete("/containers/box?v=1"),
    delete("/containers/nobody?force=1"),
]
EXEC = [
    post("/containers/create?name=box", box("sleep 60"), save="box"),
    post("/containers/box/start"),
    post("/containers/nobody/exec", {"Cmd": ["true"]}),
    post("/containers/box/exec", {}),
    post("/containers/box/exec", {"Cmd": []}),
    post("/containers/box/exec", {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}, save="cat"),
    get("/exec/{cat}/json", apart=(r"\$\.Pid",)),
    post("/exec/{cat}/start", {"Detach": False}, stdin=b"hello"),
    get("/exec/{cat}/json", apart=(r"\$\.Pid",)),
    post("/exec/{cat}/start", {"Detach": False}),
    post("/containers/box/exec", {"Cmd": ["sh", "-c", "exit 3"], "AttachStdout": True}, save="three"),
    post("/exec/{three}/start", {"Detach": False}),
    get("/exec/{three}/json", apart=(r"\$\.Pid",)),
    post("/containers/box/exec", {"Cmd": ["true"]}, save="quiet"),
    post("/exec/{quiet}/start", {"Detach": True}),
    post("/containers/box/exec", {"Cmd": ["nonsense"], "AttachStdout": True}, save="odd"),
    post("/exec/{odd}/start", {"Detach": False}, stdin=b""),
    post(
        "/containers/box/exec",
        {"Cmd": ["sh", "-c", "test -t 1"], "AttachStdout": True, "Tty": True},
        save="tty",
    ),
    post("/exec/{tty}/start", {"Detach": False, "Tty": True}, stdin=b""),
    get("/exec/nobody/json"),
    post("/exec/nobody/start", {}),
    post("/exec/nobody/resize?h=1&w=1"),
    delete("/containers/box?force=1"),
    post(
        "/containers/create?name=io", box("cat", OpenStdin=True, StdinOnce=True, AttachStdin=True), save="io"
    ),
    post("/containers/io/start"),
    post("/containers/io/attach?stream=1&stdin=1&stdout=1&stderr=1", stdin=b"typed"),
    post("/containers/io/wait"),
    post("/containers/io/attach?logs=1&stdout=1", stdin=b""),
    post(
        "/containers/nobody/attach?stream=1", stdin=b"", apart=(r"\$.*",)
    ),  # plain text, the status after it
    delete("/containers/io"),
]
FILES = [
    post("/containers/create?name=box", box("sleep 60"), save="box"),
    Case("HEAD", "/v1.41/containers/box/archive?path=/etc/passwd"),
    Case("HEAD", "/v1.41/containers/box/archive?path=/nonsense"),
    Case("HEAD", "/v1.41/containers/box/archive"),
    get("/containers/box/archive?path=/etc/passwd"),
    get("/containers/box/archive?path=/nonsense", apart=BY_ID),
    get("/containers/box/archive"),
    get("/containers/nobody/archive?path=/"),
    put("?path=/tmp"),
    put("?path=/nonsense", apart=BY_ID),
    put(""),
    put("?path=/etc/passwd"),
    get("/containers/box/changes", apart=(r"\$",)),  # the mount of the guard (create.py) makes a folder more
    get("/containers/nobody/changes"),
    get("/containers/box/export", apart=(r"\$",)),
    get("/containers/nobody/export"),
    post("/containers/prune?filters=" + quote('{"label":["none=such"]}')),
    post("/containers/prune?filters=" + quote('{"nonsense":["x"]}'), apart=(r"\$\.message",)),
    delete("/containers/box"),
]
NETWORKS = [
    listed("/networks?", {"type": ["custom"], "name": ["net"]}),
    get("/networks/nobody"),
    post("/networks/create", {"Name": "net", "Labels": {"a": "b"}}, save="net"),
    post("/networks/create", {"Name": "net", "CheckDuplicate": True}),
    post("/networks/create", {"Name": ""}, status=400, why=OLD),
    post("/networks/create", {"Name": "bridge"}),
    get("/networks/net", apart=(r"\$\.IPAM\.Config",)),  # addresses come with the lease
    get("/networks/{net:12}", apart=(r"\$\.IPAM\.Config",)),
    listed("/networks?", {"name": ["net"]}, apart=(r"\$\[\]\.IPAM\.Config",)),
    listed("/networks?", {"label": {"a=b": True}}, apart=(r"\$\[\]\.IPAM\.Config",)),
    listed("/networks?", {"nonsense": ["x"]}, apart=(r"\$\.message",)),
    post("/containers/create?name=on", box("sleep 60", {"NetworkMode": "net"}), save="on"),
    post("/containers/on/start"),
    get("/networks/net"),
    get("/containers/on/json"),
    listed("/containers/json?", {"network": ["net"]}),
    delete("/networks/net"),
    post("/networks/create", {"Name": "two"}, save="two"),
    post("/networks/two/connect", {"Container": "on"}),
    post("/networks/two/connect", {"Container": "on"}, apart=(r"\$\.message",)),
    post("/networks/two/connect", {"Container": "nobody"}),
    post("/networks/nobody/connect", {"Container": "on"}),
    post("/networks/two/disconnect", {"Container": "on"}),
    post("/networks/two/disconnect", {"Container": "on"}, apart=(r"\$\.message",)),
    post("/networks/two/disconnect", {"Container": "nobody"}),
    delete("/networks/bridge"),
    delete("/networks/nobody"),
    delete("/networks/two"),
    delete("/containers/on?force=1&v=1"),
    delete("/networks/net"),
    post("/networks/prune?filters=" + quote('{"label":["none=such"]}')),
]
VOLUMES = [
    post("/volumes/create", {"Name": "data", "Labels": {"a": "b"}}),
    post("/volumes/create", {"Name": "data"}),
    post("/volumes/create", {"Name": "/bad"}, apart=(r"\$\.message",)),
    listed("/volumes?", {"name": ["data"]}),
    listed("/volumes?", {"dangling": ["true"], "name": ["data"]}),
    listed("/volumes?", {"nonsense": ["x"]}, apart=(r"\$\.message",)),
    get("/volumes/data"),
    get("/volumes/nobody"),
    post("/containers/create?name=user", box("x", {"Binds": ["data:/d"]}), save="user"),
    get("/containers/user/json"),
    listed("/containers/json?all=1", {"volume": ["data"]}),
    delete("/volumes/data"),
    delete("/containers/user?v=1"),
    delete("/volumes/data"),
    delete("/volumes/data"),
    delete("/volumes/data?force=1"),
    post("/volumes/prune?filters=" + quote('{"label":["none=such"]}')),
    get("/system/df", apart=(r"\$\.Images.*", r"\$\.BuildCache.*")),  # what builds left, in any order
]
SUBJECTS = {
    "about": ABOUT, "create": CREATE, "running": RUNNING, "exec": EXEC, "files": FILES,
    "networks": NETWORKS, "volumes": VOLUMES,
}  # fmt: skip


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_a_client_cannot_tell_the_front_from_an_engine(tenant: Tenant, lab: Lab, subject: str) -> None:
    cases = SUBJECTS[subject]
    plain = await play(lab.socket, cases)
    ours = await play(tenant.socket, cases)
    told = []
    for case, there, here in zip(cases, plain, ours, strict=True):
        found = list(compared(case, there, here, APART))
        told += (
            [f"{case.method} {case.target} {case.body or ''!s:.60}", *(f"    {x}" for x in found)]
            if found
            else []
        )
    assert not told, "\n" + "\n".join(told)
