"""A deployment as a value: taken from the books, carried as bytes, set up again in another lease."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.adapters.front.engines import LeaseEngines
from dockage.adapters.front.replay import Replay
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from dockage.ports.renting import Progress
from dockage.protocol.docker import recipe as recipes
from dockage.protocol.docker.front_state import Container, Network, Publish, Rented, Shelf, Volume
from dockage.protocol.docker.recipe import (
    Recipe,
    RecipeContainer,
    RecipeNetwork,
    RecipeVolume,
    decode,
    encode,
    recipe_of,
)
from dockage.testing.clock import ManualClock
from dockage.testing.host import FakeHost
from dockage.testing.leases import FakeLeases

LEASE = LeaseId(b"L" * 16)
IMAGE = "sha256:" + "1a" * 32
NEED = Resources(cpu_milli=500, memory_bytes=64 * MIB)
DB, WEB, NET = "aa" * 32, "bb" * 32, "cc" * 32
RUNNING = {"State": {"Status": "running", "Running": True}, "Image": IMAGE}


def container(name: str, id_: str, host: dict[str, Any] | None = None, **more: Any) -> Container:
    body = {
        "Image": "app:1",
        "Cmd": ["x"],
        "Labels": {"com.docker.compose.project": "shop"},
        "HostConfig": host or {},
    }
    fields = {"image_id": IMAGE, "seen": json.dumps(RUNNING).encode(), **more}
    return Container(id_, name, "shop", LEASE, id_, "app:1", NEED, json.dumps(body).encode(), **fields)


def shop(*containers: Container) -> Shelf:
    """A project of a database and a web server that uses its network by id and its volumes."""
    shelf = Shelf()
    ports = {
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        "NetworkMode": NET[:12],
        "VolumesFrom": ["db:ro"],
    }
    web = container("web", WEB, ports, ports=(Publish(80, first=8080, last=8080),))
    for record in (
        Rented(LEASE, "shop", wishes={"dockage.region": "eu"}),
        Network(NET, "shop_default", b'{"Internal":true,"Labels":{"k":"v"}}', "", "shop", LEASE, "dd" * 32),
        Network("ee" * 32, "other", b"{}", ""),
        Volume("shop_data", b'{"Name":"shop_data","DriverOpts":{"size":"1g"}}', "", "shop", LEASE),
        *(containers or (web, container("db", DB, {"Binds": ["shop_data:/d"]}))),
    ):
        shelf.put(record)
    return shelf


def test_a_recipe_has_all_that_a_deployment_is_made_of() -> None:
    found = recipe_of(shop(), "shop")
    assert found.networks == (RecipeNetwork("shop_default", True, {"k": "v"}),)
    assert found.volumes == (RecipeVolume("shop_data", {"size": "1g"}),)
    assert (found.need, found.images, found.wishes) == (
        NEED + NEED,
        {IMAGE: "app:1"},
        {"dockage.region": "eu"},
    )
    assert [one.name for one in found.containers] == ["db", "web"], "whose volumes are used comes first"
    web = found.containers[1]
    host = json.loads(web.body)["HostConfig"]
    assert host == {"NetworkMode": "shop_default", "VolumesFrom": [DB + ":ro"]}, (
        "own words for others, no host ports"
    )
    assert [port.end for port in web.ports] == ["80/tcp"]
    assert decode(encode(found)) == found


def test_what_was_stopped_is_not_started_elsewhere() -> None:
    stopped = json.dumps({"State": {"Status": "exited"}}).encode()
    shelf = shop(container("db", DB), container("web", WEB, seen=stopped))
    assert [one.runs for one in recipe_of(shelf, "shop").containers] == [True, False]


def test_of_an_ended_lease_the_recipe_is_as_it_was_before() -> None:
    dead = json.dumps({"State": {"Status": "exited"}}).encode()
    shelf = shop(
        container("db", DB, seen=dead, ended="gone", ran=True), container("web", WEB, seen=dead, ended="gone")
    )
    assert [one.runs for one in recipe_of(shelf, "shop").containers] == [True, False]


def test_a_command_that_somebody_typed_is_no_part_of_it() -> None:
    typed = container("run", "ff" * 32)
    body = json.loads(typed.body)
    body["Labels"]["com.docker.compose.oneoff"] = "True"
    shelf = shop(container("db", DB), replace(typed, body=json.dumps(body).encode()))
    assert [one.name for one in recipe_of(shelf, "shop").containers] == ["db"]


@pytest.mark.parametrize(
    ("shelf", "deployment", "code"),
    [
        (shop(), "nobody", "recipe.unknown"),
        (shop(container("db", DB, image_id="", seen=b"{}")), "shop", "recipe.incomplete"),
    ],
)
def test_what_is_not_known_is_not_made_up(shelf: Shelf, deployment: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_of(shelf, deployment)
    assert caught.value.code == code


def test_a_step_changes_with_what_it_makes_and_with_nothing_else() -> None:
    one = recipe_of(shop(), "shop").containers[0]
    assert one.step == msgspec.structs.replace(one, runs=False, reference="app:2").step
    others = [msgspec.structs.replace(one, **change) for change in (
        {"name": "b"}, {"image": "sha256:" + "2b" * 32}, {"body": b"{}"},
    )]  # fmt: skip
    assert len({one.step, *(other.step for other in others)}) == 4


GOOD = recipe_of(shop(), "shop")
FIRST, SECOND = GOOD.containers


def with_containers(*containers: RecipeContainer) -> Recipe:
    return msgspec.structs.replace(GOOD, containers=containers)


def changed(**change: Any) -> Recipe:
    return with_containers(msgspec.structs.replace(FIRST, **change))


@pytest.mark.parametrize(
    "lie",
    [
        with_containers(FIRST, FIRST),
        with_containers(SECOND),  # its peer is not made before it
        changed(name="../x"),
        changed(id="aa"),
        changed(image="app:1"),
        changed(body=b"[]"),
        changed(body=b"{"),
        changed(body=b'{"HostConfig":{"Privileged":true}}'),
        changed(body=b'{"HostConfig":{"Binds":["/etc:/e"]}}'),
        changed(body=b'{"HostConfig":{"NetworkMode":"elsewhere"}}'),
        changed(body=b'{"HostConfig":{"PidMode":"container:' + b"9" * 64 + b'"}}'),
        msgspec.structs.replace(GOOD, networks=(RecipeNetwork("a b"), *GOOD.networks)),
        msgspec.structs.replace(GOOD, volumes=tuple(RecipeVolume(f"v{n}") for n in range(257))),
        with_containers(
            *(
                msgspec.structs.replace(FIRST, id=f"{n:064x}", name=f"c{n}")
                for n in range(recipes.CONTAINERS_MAX + 1)
            )
        ),
    ],
)
def test_a_lie_in_a_recipe_is_found_before_anything_is_made(lie: Recipe) -> None:
    with pytest.raises(PeerError) as caught:
        decode(encode(lie))
    assert caught.value.code == "recipe.malformed"


@given(st.binary(max_size=200) | st.integers(0, len(encode(GOOD)) - 1).map(lambda n: encode(GOOD)[:n]))
def test_any_bytes_are_a_recipe_or_refused(data: bytes) -> None:
    with suppress(PeerError):
        assert decode(encode(decode(data))) == decode(data)


@given(st.data())
def test_a_byte_that_was_changed_harms_nobody(data: st.DataObject) -> None:
    spoiled = bytearray(encode(GOOD))
    at = data.draw(st.integers(0, len(spoiled) - 1))
    spoiled[at] = data.draw(st.integers(0, 255))
    test_any_bytes_are_a_recipe_or_refused.hypothesis.inner_test(bytes(spoiled))  # type: ignore[attr-defined]


def test_a_recipe_has_an_end() -> None:
    vast = changed(body=json.dumps({"Env": ["X=" + "x" * recipes.RECIPE_MAX]}).encode())
    with pytest.raises(UsageError, match="shorten"):
        encode(vast)
    with pytest.raises(PeerError):
        decode(bytes(recipes.RECIPE_MAX + 1))


async def test_an_image_that_became_another_is_not_run_in_its_place() -> None:
    asked = []

    async def send_image(reference: str, _lease: LeaseId, _progress: Progress) -> str:
        asked.append(reference)
        if reference == IMAGE:
            raise UsageError("image.unknown", "it was built anew meanwhile")
        return "sha256:" + "2b" * 32

    async with asyncio.TaskGroup() as tasks:
        leases = FakeLeases(FakeHost(ManualClock()), tasks, lambda: LEASE)
        with pytest.raises(UsageError) as caught:
            await Replay(LeaseEngines(leases), send_image).set_up(GOOD, LEASE, lambda _: None)
    assert caught.value.code == "recipe.image-changed"
    assert asked == [IMAGE, "app:1"]
