"""A deployment is set up again in a second lease, in two goes, and the user's docker follows it there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dockage.adapters.front.watch import Watch
from dockage.domain.errors import Unavailable, UsageError
from dockage.protocol.docker.recipe import decode, encode
from frontlab import LIMITS, SITE, Tenant, fetch, serves, until
from hostlab import IMAGE, Lab


def quiet(_: str) -> None:
    """Nobody watches."""


async def test_a_deployment_moves_to_another_lease(tenant: Tenant, lab: Lab) -> None:
    await tenant.docker("network", "create", "shop")
    await tenant.docker("volume", "create", "data")
    db = await tenant.run("--name", "db", "--network", "shop", "-v", "data:/d", IMAGE, "sh", "-c", SITE)
    web = await tenant.run(
        "--name", "web", "--network", "shop", "--volumes-from", "db", "-p", "0:80", IMAGE, "sh", "-c", SITE
    )
    await tenant.docker("create", "--name", "spare", "--network", "shop", *LIMITS, IMAGE, "true")
    port = int((await tenant.docker("port", "web", "80")).rpartition(":")[2])
    await until(lambda: serves(port))
    front = tenant.front
    [deployment] = {info.deployment for info in tenant.leases.all()}
    recipe = decode(encode(front.recipe(deployment)))
    assert [one.name for one in recipe.containers] == ["db", "web", "spare"]

    old = tenant.leases.all()[0].id
    lease = (await tenant.leases.obtain("copy", recipe.need, recipe.wishes, quiet)).id
    standby = await front.replay(recipe, lease, quiet, start=False)
    state = ["inspect", "-f", "{{.State.Status}}"]
    assert await asyncio.to_thread(lab.docker, *state, standby[web].remote) == "created"
    assert await front.replay(recipe, lease, quiet) == standby, "what was made by the same step is kept"
    assert await asyncio.to_thread(lab.docker, *state, standby[web].remote) == "running"
    spare = next(one.id for one in recipe.containers if one.name == "spare")
    assert await asyncio.to_thread(lab.docker, *state, standby[spare].remote) == "created"
    assert "hello" in await fetch(port), "the old copy serves on"

    await tenant.leases.end(old, "its provider went away")
    await front.adopt(deployment, standby)
    await until(lambda: serves(port))
    shown = await tenant.inspect("web")
    assert (shown["Id"], shown["State"]["Status"]) == (web, "running")
    assert shown["Config"]["Labels"]["dockage.lease"] == lease.hex()
    assert "hello" in await tenant.docker("exec", "web", "wget", "-qO-", "http://db/")
    assert await tenant.docker("exec", "web", "ls", "/d") == await tenant.docker("exec", db, "ls", "/d")
    await tenant.docker("rm", "-f", "db", "web", "spare")
    await tenant.docker("volume", "rm", "data")
    await until(lambda: len(tenant.leases.all()) == 0)


async def test_what_was_just_started_is_to_run_also_before_its_event_is_heard(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.docker("create", "--name", "web", *LIMITS, IMAGE, "sleep", "60")
    [deployment] = {info.deployment for info in tenant.leases.all()}
    await until(lambda: seen_at_all(tenant, deployment))
    monkeypatch.setattr(Watch, "look", never)
    await tenant.docker("start", "web")
    assert [one.runs for one in tenant.front.recipe(deployment).containers] == [True]


def seen_at_all(tenant: Tenant, deployment: str) -> bool:
    try:
        return [one.runs for one in tenant.front.recipe(deployment).containers] == [False]
    except UsageError:
        return False


async def never(*_: object) -> dict[str, Any]:
    raise Unavailable("peer.slow", "its provider does not answer")
