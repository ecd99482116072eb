"""How fast the market answers, and how soon it shows what is new: real nodes on loopback, 10,000 live offers.

Sixteen market nodes, one of them an index too, run in a process of their own (``market_nodes.py``); the searcher runs
here, and is a new node for each cold query. Nothing leaves the machine, and nothing is cached between queries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import uvloop
from market_nodes import REGION, Part, quiet
from msgspec.structs import replace

from dockage.daemon.indexes import Indexes
from dockage.daemon.market import Market, Notice
from dockage.daemon.queries import Queries
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer, Wish
from dockage.domain.pricing import PRESETS
from dockage.domain.query import Query
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB, Msat
from dockage.ports.peers import Address

STAMP_BITS = 16
"""The default of ``node.stamp_bits``: a provider's work on each of its offers."""
WISH = Wish(
    NodeKey(bytes(32)), Resources(1000, 512 * MIB, GIB), REGION, max_msat_hour=Msat(9_000), network="regtest"
)

Seeds = list[tuple[NodeKey, Address]]


def main() -> None:
    options = _options()
    quiet()
    here = Path(__file__).with_name("market_nodes.py")
    wanted = json.dumps({"offers": options.offers, "nodes": options.nodes})
    process = subprocess.Popen(
        [sys.executable, str(here), wanted], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(measure(options, told))
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends when nobody speaks to it any more
        process.wait(60)
    show(options, told, figures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="*", help="Not used: the market needs no engine.")
    parser.add_argument("--offers", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--cold", type=int, default=20, help="Cold queries.")
    parser.add_argument("--warm", type=int, default=100, help="Queries of the index.")
    parser.add_argument("--changes", type=int, default=20, help="Changes of an offer.")
    parser.add_argument("--json", metavar="FILE", help="Write the figures there; - is stdout.")
    return parser.parse_args()


async def measure(options: argparse.Namespace, told: dict[str, Any]) -> dict[str, Any]:
    seeds: Seeds = [
        (NodeKey(bytes.fromhex(key)), Address("", tuple(direct))) for key, direct in told["nodes"]
    ]
    cold = [await cold_query(number, seeds, told["offers"]) for number in range(options.cold)]
    warm = await index_queries(options.warm, seeds)
    visible = await changes(options.changes, seeds)
    return {
        "query_10k_p95_ms": p95(cold, 1000, 1),
        "query_10k_index_p95_ms": p95(warm, 1000, 1),
        "index_offers_per_s": told["index_offers_per_s"],
        "visible_p95_s": p95(visible, 1, 2),
    }


def p95(times: Sequence[float], scale: int, digits: int) -> float | None:
    """None where nothing was measured."""
    return round(scale * sorted(times)[(len(times) * 95 - 1) // 100], digits) if times else None


async def timed(work: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = await work()
    return time.perf_counter() - began, found


def searcher(part: Part, indexes: Sequence[NodeKey]) -> tuple[Market, Indexes, Queries]:
    market = Market(part.directory, part.link, part.keys, part.clock, (REGION,))
    known = Indexes(part.directory, part.link, part.keys, part.clock, [], Random(1))
    known._found[REGION] = (float("inf"), list(indexes))
    return market, known, Queries(market, known, part.clock, Random(1))


async def cold_query(number: int, seeds: Seeds, offers: int) -> float:
    """By a node that has just entered the market through one seed: by the board's holders alone. What it found is held
    against what the index says; a machine that is too busy is said to have been."""
    part = await Part.made(500 + number)
    await part.directory.bootstrap(seeds[:1])
    _, _, queries = searcher(part, [])
    took, answer = await timed(lambda: queries.ask(Query(WISH)))
    _, indexes, _ = searcher(part, [])
    best = await indexes.ask(seeds[0][0], Query(WISH), 64)
    missed = (
        {record.key for record in best.records} - {x.offer.provider for x in answer.found} if best else {b""}
    )
    await part.link.close()
    if answer.known < offers or missed:
        print(f"cold query {number} missed {len(missed)} of the best 64 in {took:.1f} s", file=sys.stderr)
    return took


async def index_queries(count: int, seeds: Seeds) -> list[float]:
    """One question and its answer, its 64 signatures verified, over a connection that is there."""
    part = await Part.made(400)
    await part.directory.bootstrap(seeds[:1])
    _, indexes, _ = searcher(part, [])
    times = []
    for number in range(count):
        query = Query(replace(WISH, limits=Resources(500 + 10 * number, 512 * MIB, GIB)))
        took, reply = await timed(lambda query=query: indexes.ask(seeds[0][0], query, 64))  # type: ignore[misc]
        assert reply is not None
        assert len(reply.records) == 64
        times.append(took)
        await asyncio.sleep(0.1)  # an index answers ten a second of one peer
    await part.link.close()
    return times


async def changes(count: int, seeds: Seeds) -> list[float]:
    """From the moment that a provider's offer is another one (it is sealed with work, put on the board and announced)
    until a searcher sees it who asks the index again and again."""
    seller, buyer = await Part.made(300), await Part.made(301)
    for part in (seller, buyer):
        await part.directory.bootstrap(seeds[:1])
    _, asked, _ = searcher(buyer, [])
    offer = Offer(
        seller.keys.node, Resources(100_000, GIB, GIB), PRESETS["fair"], REGION, "x86_64", "regtest"
    )
    _, told, _ = searcher(seller, [seeds[0][0]])
    notice = Notice(
        seller.directory, seller.link, seller.keys, seller.clock, lambda: offer, STAMP_BITS, told.announce
    )
    keeping = asyncio.get_running_loop().create_task(notice.keep_up())
    rand, times = Random(3), []
    for number in range(count):
        await asyncio.sleep(rand.uniform(0, 3))
        offer = replace(offer, free=Resources(100_001 + number, GIB, GIB))
        began = time.perf_counter()
        while not await is_shown(asked, seeds[0][0], seller.keys.node, offer.free):  # noqa: ASYNC110 - that is how one looks
            await asyncio.sleep(0.15)
        times.append(time.perf_counter() - began)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    for part in (seller, buyer):
        await part.link.close()
    return times


async def is_shown(indexes: Indexes, index: NodeKey, provider: NodeKey, free: Resources) -> bool:
    reply = await indexes.ask(index, Query(replace(WISH, limits=free, max_msat_hour=None)), 64)
    return reply is not None and any(x.key == provider and x.body.offer.free == free for x in reply.records)


def show(options: argparse.Namespace, told: dict[str, Any], figures: dict[str, Any]) -> None:
    text = json.dumps(figures, indent=1)
    if options.json and options.json != "-":
        Path(options.json).write_text(text + "\n")
    if options.json == "-":
        print(text)
        return
    print(f"{told['offers']} offers of {told['bytes']} bytes on {options.nodes} market nodes, on loopback")
    for name, value in figures.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
