"""A tenant's machine without any Docker engine: images come in as archives, and run all the same."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from barelab import Bare
from dockage.adapters.front import routes
from dockage.adapters.front.call import Call
from dockage.protocol.registry import HUB_HOST
from dockage.wire.http import HttpServer, Request
from frontlab import LIMITS, Tenant, cli_of
from hostlab import IMAGE, base_image


@pytest.fixture
def tenant(bare_tenant: Tenant) -> Tenant:
    return bare_tenant


async def test_an_archive_is_loaded_named_shown_saved_and_run(
    bare: Bare, tenant: Tenant, folder: Path
) -> None:
    assert await tenant.docker("load", "-i", str(base_image())) == f"Loaded image: {IMAGE}"
    [shown] = json.loads(await tenant.docker("image", "inspect", IMAGE))
    id_ = shown["Id"]
    assert (shown["Os"], shown["RepoTags"]) == ("linux", [IMAGE])
    assert shown["Config"]["Cmd"] == ["/bin/sh"]
    await tenant.docker("tag", IMAGE, "mine")
    names = await tenant.docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--no-trunc")
    assert sorted(names.split()[::2]) == [IMAGE, "mine:latest"]
    assert await tenant.docker("images", "-q", "mine") == id_[7:19]
    assert await tenant.docker("images", "-q", "--filter", "dangling=true") == ""
    assert "dockage script/images" in await tenant.docker("history", "mine")

    await tenant.docker("save", "-o", str(folder / "saved.tar"), "mine", IMAGE)
    with tarfile.open(folder / "saved.tar") as tar:
        assert "manifest.json" in tar.getnames()
    assert "several names" in await tenant.refused("rmi", id_[7:19])
    await tenant.docker("rmi", "mine")
    await tenant.docker("rmi", id_)
    assert await tenant.docker("images", "-q") == ""
    assert list((folder / "own" / "layers").iterdir()) == []
    await tenant.docker("load", "-i", str(folder / "saved.tar"))

    assert await tenant.docker("run", "--rm", *LIMITS, "mine", "echo", "runs") == "runs"
    assert await tenant.docker("run", "--rm", *LIMITS, id_[7:19], "echo", "again") == "again"
    lines = [line for _, line in bare.told]
    assert any(" of " in line for line in lines), "whoever waits can see how far the image is"
    assert lines[-1] == ""


async def test_what_is_there_outlives_the_daemon_and_is_kept_while_a_container_needs_it(
    tenant: Tenant, folder: Path
) -> None:
    await tenant.docker("load", "-q", stdin=base_image().read_bytes())
    await tenant.docker("create", "--name", "box", *LIMITS, IMAGE, "true")
    (folder / "own" / "layers" / "new-rubbish").write_bytes(b"of a crash")
    await tenant.stop()
    await tenant.start()
    assert await tenant.docker("images", "-q") != ""
    assert "container box needs it" in await tenant.refused("rmi", IMAGE)
    assert await tenant.docker("image", "prune", "-af") == "Total reclaimed space: 0B"
    await tenant.docker("rm", "box")
    await tenant.docker("image", "prune", "-af")
    assert await tenant.docker("images", "-q") == ""
    assert list((folder / "own" / "layers").iterdir()) == []


async def test_what_needs_an_engine_says_what_to_do(tenant: Tenant, folder: Path) -> None:
    for words in (("push", "busybox"), ("search", "busybox"), ("import", "/dev/null")):
        assert "no local Docker engine" in await tenant.refused(*words)
    for words in (("pull", "busybox"), ("run", *LIMITS, "busybox")):
        assert f"{HUB_HOST} does not answer" in await tenant.refused(*words), "no network here"
    await tenant.docker("system", "prune", "-af")
    assert tenant.leases.obtained == []


BUILDS = {
    "debian": ("DOCKER_BUILDKIT=0 build CTX", "DOCKER_BUILDKIT=1 build CTX"),
    "current": (
        "build CTX",
        "buildx create --name mine --bootstrap",
        "compose --project-directory CTX build",
    ),
}


@pytest.mark.parametrize("generation", BUILDS)
async def test_a_build_ends_at_once_and_says_what_to_do(
    tenant: Tenant, folder: Path, generation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """buildx would pull a builder and run it privileged; a client of 2021 hides the words of a refused session."""
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    (folder / "compose.yaml").write_text("services:\n  web:\n    build: .\n")
    asked, find = list[str](), routes.find

    def noted(server: HttpServer, request: Request) -> tuple[routes.Handler, Call]:
        asked.append(request.target)
        return find(server, request)

    monkeypatch.setattr(routes, "find", noted)
    for line in BUILDS[generation]:
        words = line.replace("CTX", str(folder)).split()
        if words[0].startswith("DOCKER_BUILDKIT="):
            tenant.env["DOCKER_BUILDKIT"] = words.pop(0)[-1]
        done = await tenant.tried(*words, program=cli_of(generation))
        assert done.code != 0, (line, done)
        assert "no local Docker engine" in done.err, (line, done)
        assert "'docker load -i image.tar'" in done.err
    assert not [target for target in asked if "/images/create" in target], "nothing was pulled to no end"
    assert tenant.leases.obtained == []


async def test_no_more_than_its_limit_is_kept(bare: Bare, tenant: Tenant, folder: Path) -> None:
    await tenant.stop()
    bare.limit = 1 << 20
    await tenant.start()
    assert "remove images" in await tenant.refused("load", "-i", str(base_image()))
    assert "cannot be read" in await tenant.refused("load", "-i", "/dev/null")
    assert await tenant.docker("images", "-q") == ""
    assert list((folder / "own" / "layers").iterdir()) == []
