"""Which documents stand beside each other at a gateway, and which replica gets the next request."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.deployment import Document, Site, alias
from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.routing import Rules, check, claims, is_dropped, pick
from dockage.domain.units import Instant

ME, OTHER = NodeKey(b"m" * 32), NodeKey(b"o" * 32)
ONE, TWO = LeaseId(b"1" * 16), LeaseId(b"2" * 16)
RULES = Rules("example.net", 20000, 20001)


def document(name: str, *sites: Site, tenant: NodeKey = ME, epoch: int = 1) -> Document:
    return Document(tenant, name, epoch, Instant(9), sites, (), ())


def web(host: str) -> Site:
    return Site((host,), 80, "web")


def port(number: int, mode: str = "tcp") -> Site:
    return Site((), 22, "web", mode, number)  # type: ignore[arg-type]


SHOP = document("shop", web("shop.example.com"), port(20000))
HELD = dict.fromkeys(claims(SHOP), (ONE, SHOP))


def refusal(lease: LeaseId, new: Document, rules: Rules = RULES) -> str:
    with pytest.raises(UsageError) as caught:
        check(HELD, lease, new, rules)
    return caught.value.code


def test_what_fits_beside_the_others() -> None:
    check(HELD, TWO, document("blog", web("blog.example.com"), port(20001), port(20000, "udp")), RULES)
    check(HELD, TWO, document("blog", web(alias("blog", ME, "example.net"))), RULES)
    check(HELD, ONE, document("blog", web("shop.example.com")), RULES)
    check(HELD, TWO, document("shop", web("shop.example.com")), RULES)


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (document("blog", web("shop.example.com")), "site.taken"),
        (document("blog", web("shop.example.com"), tenant=OTHER), "site.taken"),
        (document("shop", web("shop.example.com"), tenant=OTHER), "site.taken"),
        (document("blog", port(20000)), "site.taken"),
        (document("blog", port(19999)), "site.port"),
        (document("blog", port(20002, "udp")), "site.port"),
        (document("blog", web("example.net")), "site.foreign"),
        (document("blog", web(alias("blog", OTHER, "example.net"))), "site.foreign"),
        (document("shop", web("shop.example.com"), epoch=0), "document.old"),
    ],
)
def test_what_does_not(new: Document, code: str) -> None:
    assert refusal(TWO, new) == code


def test_what_the_operator_dropped() -> None:
    for name in ("shop.example.com", ME.hex()):
        assert refusal(ONE, SHOP, RULES._replace(dropped=frozenset({name}))) == "document.dropped"
        assert is_dropped(SHOP, [name])
    assert not is_dropped(SHOP, ["other.example.com"])


def test_a_gateway_without_ports_rents_none() -> None:
    assert refusal(ONE, SHOP, Rules("")) == "site.port"


@dataclass
class Backend:
    in_flight: int
    misses: int = 0

    @property
    def down(self) -> bool:
        return self.misses > 0


@given(st.lists(st.builds(Backend, st.integers(0, 9), st.integers(0, 3)), max_size=6), st.integers())
def test_somebody_is_asked_and_never_one_that_is_down_beside_one_that_is_up(
    choice: list[Backend], seed: int
) -> None:
    found = pick(choice, Random(seed))
    assert (found is None) == (not choice)
    if found is not None and any(not each.down for each in choice):
        assert not found.down


def test_the_busiest_is_never_chosen_of_two() -> None:
    busy, free = Backend(9), Backend(0)
    assert {id(pick([busy, free], Random(seed))) for seed in range(20)} == {id(free)}


def test_where_all_are_down_the_one_that_missed_least_is_tried() -> None:
    assert pick([Backend(0, 5), one := Backend(0, 1)], Random(0)) is one
