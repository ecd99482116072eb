"""What stands in the way, and the smallest change that helps."""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.advice import changes
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer, Wish, hourly_ceiling
from dockage.domain.pricing import PRESETS
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, Msat

WISH = Wish(NodeKey(b"T" * 32), Resources(2000, 4 * GIB, GIB), network="regtest", region="earth")


def offer(number: int, **more: object) -> Offer:
    free = Resources(4000, 8 * GIB, 80 * GIB)
    key = NodeKey(bytes([number]) * 32)
    return replace(Offer(key, free, PRESETS["fair"], "earth", "x86_64", "regtest"), **more)


def test_the_smallest_change_comes_first() -> None:
    little_memory = offer(1, free=Resources(4000, 3 * GIB, 80 * GIB))
    few_cores = offer(2, free=Resources(1000, 8 * GIB, 80 * GIB))
    elsewhere = offer(3, region="mars")
    found = changes([few_cores, elsewhere, little_memory], WISH)
    assert [(x.what, x.text) for x in found] == [
        ("memory_bytes", "3072 MiB of memory instead of 4096"),
        ("cpu_milli", "1 cores instead of 2"),
        ("region", "region mars"),
    ]
    assert found[0].provider == little_memory.provider


def test_a_change_that_brings_more_of_it_counts_once() -> None:
    some = [offer(n, free=Resources(4000, memory * GIB, 80 * GIB)) for n, memory in ((1, 1), (2, 3), (3, 3))]
    [found] = changes(some, WISH)
    assert (found.text, found.offers) == ("3072 MiB of memory instead of 4096", 2)


def test_the_price_that_would_do_is_enough() -> None:
    one = offer(1)
    price = hourly_ceiling(one, WISH.limits)
    wish = replace(WISH, max_msat_hour=Msat(price // 2))
    [found] = changes([one], wish)
    assert found.what == "max_msat_hour"
    enough = Msat(1000 * int(found.text.split()[4]))
    assert changes([one], replace(wish, max_msat_hour=enough)) == ()
    assert hourly_ceiling(one, WISH.limits) <= enough


def test_what_two_things_stand_in_the_way_of_is_no_advice_nor_what_cannot_be_changed() -> None:
    both = offer(1, free=Resources(1000, GIB, GIB))
    closed = offer(2, only_for=(NodeKey(b"X" * 32),))
    shunned = offer(3, region="mars")
    assert changes([both, closed, shunned], WISH, lambda key: 9999 if key == shunned.provider else 0) == ()
