"""The other side of ``market.py``: market nodes and an index that hold the offers, in a process of their own.

Prints one line of JSON when it is ready (who they are, and what indexing took), and ends when its input does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
import time
from random import Random
from typing import Any

import msgspec
import structlog
import uvloop

from dockage.adapters.dht.directory import KademliaDirectory
from dockage.adapters.link.link import IrohLink
from dockage.adapters.system.clock import SystemClock
from dockage.daemon.indexing import Indexer
from dockage.daemon.peers import Reception
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer
from dockage.domain.pricing import PRESETS, scaled
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, Instant
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.records import LIFETIME, OfferBody, open_record, seal
from dockage.testing.keys import MemoryKeys
from dockage.wire.ahead import Headed
from dockage.wire.frames import frame
from dockage.wire.keys import verify

REGION = "earth"


class Keys(MemoryKeys):
    """The real signatures; only the file is missing."""

    def verify(self, key: NodeKey, message: bytes, signature: bytes) -> bool:
        return verify(key, message, signature)


class Part:
    """A node's link and its part of the market, wired as ``daemon/system.py`` does."""

    def __init__(self, keys: Keys, link: IrohLink, *, server: bool) -> None:
        self.keys, self.link, self.clock = keys, link, SystemClock()
        self.reception = Reception(keys, asyncio.get_running_loop().time)
        self.directory = KademliaDirectory(
            node=keys.node,
            verify=verify,
            clock=self.clock,
            open_stream=self._open,
            learn=link.learn,
            address=link.address,
            rand=Random(keys.seed),
            server=server,
        )
        self.reception.serve_kind(streams.Directory, self._serve)

    @classmethod
    async def made(cls, number: int, *, server: bool = False) -> Part:
        keys = Keys(number)
        return cls(keys, await IrohLink.create(keys.seed), server=server)

    async def _open(self, peer: NodeKey) -> Stream:
        return Headed(await self.link.open(peer, 5.0), frame(streams.encode_header(streams.Directory())))

    async def _serve(self, peer: NodeKey, _: Any, stream: Stream) -> None:
        await self.directory.serve_stream(peer, stream)


def offers(count: int, now: Instant) -> list[bytes]:
    """Sealed as their providers would: other keys, networks, sizes and prices."""
    rand = Random(7)
    made = []
    for number in range(count):
        keys = MemoryKeys(10_000 + number)
        free = Resources(rand.choice([500, 1000, 2000, 4000, 8000]), rand.choice([1, 4, 16]) * GIB, 100 * GIB)
        tariff = scaled(PRESETS["fair"], rand.randrange(50, 250), 100)
        offer = Offer(keys.node, free, tariff, REGION, "x86_64", "regtest")
        address = f"{rand.randrange(1, 223)}.{rand.randrange(256)}.{rand.randrange(256)}.7:4711"
        body = OfferBody(now, Instant(now + LIFETIME), offer, "", (address,))
        made.append(seal("offer", keys.node, body, keys.sign))
    return made


async def hold(count: int, nodes: int) -> None:
    parts = [await Part.made(number, server=True) for number in range(nodes)]
    first = parts[0]
    indexer = Indexer(first.directory, first.link, first.keys, first.clock, (REGION,), 0)
    first.reception.serve_kind(streams.Index, indexer.serve)
    async with asyncio.TaskGroup() as tasks:
        serving = [tasks.create_task(part.link.serve(part.reception.accept)) for part in parts]
        for part in parts:
            await part.directory.bootstrap([(first.link.node, first.link.address())])
        now = first.clock.now()
        blobs = offers(count, now)
        began = time.process_time()
        for blob in blobs:
            indexer.book.put(blob, now)
        took = time.process_time() - began
        opened = [open_record(blob, verify, now) for blob in blobs]
        for part in parts:  # sixteen nodes are the closest to every place, so each of them holds everything
            for record in opened:
                part.directory._node.store.admit(record)
        await indexer.publish()
        told = {
            "nodes": [[part.link.node.hex(), part.link.address().direct] for part in parts],
            "offers": len(indexer.book),
            "bytes": len(blobs[0]),
            "digest": hashlib.sha256(b"".join(blobs)).hexdigest(),
            "index_offers_per_s": round(len(blobs) / took),
        }
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in serving:
            task.cancel()


def quiet() -> None:
    """Stdout is for figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


if __name__ == "__main__":
    quiet()
    wanted = msgspec.json.decode(sys.argv[1], type=dict[str, int])
    uvloop.run(hold(wanted["offers"], wanted["nodes"]))
