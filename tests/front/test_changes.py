"""Which of our user's commands begin a change, and when it is through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dockage.adapters.front.books import Books
from dockage.adapters.front.changes import Changes
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.protocol.docker.front_state import Container
from dockage.testing.journal import MemoryJournal

LEASE = LeaseId(b"L" * 16)


def body(service: str, number: int = 1, **more: str) -> dict[str, Any]:
    labels = {
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": service,
        "com.docker.compose.container-number": str(number),
    }
    return {"Image": "app", "Labels": {**labels, **more}}


def container(id_: str, made_of: dict[str, Any], **more: Any) -> Container:
    id_ = id_ * 32
    return Container(
        id_, id_[:4], "shop", LEASE, id_, "app", Resources(), json.dumps(made_of).encode(), **more
    )


class Lab:
    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.books = Books(self.journal)
        self.changes = Changes(self.books)
        self.told: list[str] = []
        self.answer: bool | None = True
        self.changes.begin, self.changes.through = self.begin, self.through
        self.books.keep(container("a1", body("web")), container("b1", body("db")))

    async def begin(self, deployment: str, _labels: object, _progress: object) -> bool | None:
        self.told.append(f"begin {deployment}")
        return self.answer

    async def through(self, deployment: str) -> None:
        self.told.append(f"through {deployment}")

    async def creates(self, id_: str, made_of: dict[str, Any]) -> Container:
        await self.changes.before_create("shop", made_of, lambda _: None)
        made = container(id_, made_of)
        self.books.keep(made)
        self.changes.created(made, made_of)
        return made


@pytest.fixture
def lab() -> Lab:
    return Lab()


async def test_a_container_made_anew_is_a_change_until_it_is_started(lab: Lab) -> None:
    new = await lab.creates("a2", body("web"))
    assert lab.told == ["begin shop"]
    await lab.changes.started(lab.books.container("b1" * 32))
    assert lab.told == ["begin shop"]
    await lab.changes.started(new)
    assert lab.told == ["begin shop", "through shop"]


@pytest.mark.parametrize(
    "made_of",
    [
        body("cache"),
        body("web", 2),
        body("web", **{"com.docker.compose.oneoff": "True"}),
        {"Image": "app"},
    ],
)
async def test_a_new_service_a_second_one_a_one_off_and_a_lone_one_are_none(
    lab: Lab, made_of: dict[str, Any]
) -> None:
    await lab.creates("c1", made_of)
    assert lab.told == []


async def test_what_an_ended_lease_held_is_not_replaced(lab: Lab) -> None:
    lab.books.keep(container("a1", body("web"), ended="the lease has ended"))
    await lab.creates("a2", body("web"))
    assert lab.told == []


async def test_two_services_are_one_change(lab: Lab) -> None:
    web, db = await lab.creates("a2", body("web")), await lab.creates("b2", body("db"))
    await lab.changes.started(web)
    assert "through shop" not in lab.told
    await lab.changes.started(db)
    assert lab.told[-1] == "through shop"


async def test_what_makes_room_is_not_counted_until_it_is_gone_or_started_again(lab: Lab) -> None:
    old = lab.books.container("a1" * 32)
    lab.answer = None
    await lab.creates("a2", body("web"))
    assert lab.changes.replaced == {old.id}
    await lab.changes.removed(old)
    assert lab.changes.replaced == set()
    await lab.creates("a3", body("web"))
    await lab.changes.started(old)
    assert old.id not in lab.changes.replaced


async def test_one_that_is_removed_again_was_broken_off(lab: Lab) -> None:
    new = await lab.creates("a2", body("web"))
    await lab.changes.removed(new)
    assert lab.told[-1] == "through shop"


async def test_the_removal_of_the_old_one_ends_nothing(lab: Lab) -> None:
    old = lab.books.container("a1" * 32)
    await lab.creates("a2", body("web"))
    await lab.changes.removed(old)
    assert lab.told == ["begin shop"]


async def test_what_was_before_is_remembered_over_a_restart(lab: Lab) -> None:
    await lab.creates("a2", body("web"))
    again = Books(lab.journal)
    again.load()
    assert [one.id for one in again.shelf.before["shop"].containers] == ["a1" * 32, "b1" * 32]


async def test_a_change_that_goes_on_remembers_what_was_before_its_first_one(lab: Lab) -> None:
    new = await lab.creates("a2", body("web"))
    await lab.changes.started(new)
    lab.books.forget(lab.books.container("a1" * 32))
    lab.answer = False
    await lab.creates("a3", body("web"))
    assert [one.id for one in lab.books.shelf.before["shop"].containers] == ["a1" * 32, "b1" * 32]


async def test_where_nobody_rolls_out_nothing_is_kept(lab: Lab) -> None:
    lab.answer = None
    new = await lab.creates("a2", body("web"))
    await lab.changes.started(new)
    assert lab.told == ["begin shop"]
    assert not lab.books.shelf.before


def test_at_an_hour_of_none_a_start_waits_unless_compose_waits_for_it(lab: Lab) -> None:
    lab.changes.asleep = lambda name, labels: f"8 {name}" if labels["dockage.schedule"] == "night" else ""
    web = lab.books.container("a1" * 32)
    assert lab.changes.sleeps(web) == ""
    assert not lab.changes.delays(web)
    lab.books.keep(container("c1", body("job", **{"dockage.schedule": "night"})))
    assert lab.changes.sleeps(web) == "8 shop", "one label counts for the whole"
    assert lab.changes.delays(web)
    needy = body("front", **{"com.docker.compose.depends_on": "web:service_healthy:false"})
    lab.books.keep(container("d1", needy))
    assert lab.changes.sleeps(web)
    assert not lab.changes.delays(web)
