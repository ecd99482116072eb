"""What comes of the stores and lookups of honest nodes in a ``Web``: the figures of the benchmark and of the tests."""

from __future__ import annotations

from collections.abc import Sequence

from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND
from dockage.protocol.dht_operations import Puts, Search
from dockage.protocol.records import NodeBody, node_topic, seal

from .directory import Honest, Web


class Trials:
    def __init__(self, web: Web) -> None:
        self.web = web
        self.copies: list[int] = []
        """Honest live holders, for each store."""
        self.found: list[bool] = []
        self.took: list[int] = []
        """Simulated nanoseconds of each lookup."""
        self.asked: list[int] = []
        """Questions of each lookup."""

    @property
    def stored_rate(self) -> float:
        return _share([copies > 0 for copies in self.copies])

    @property
    def found_rate(self) -> float:
        return _share(self.found)

    def trial(self, readers: int, wait: int = 60 * SECOND) -> None:
        """One node publishes where it is; *readers* others look for it a while later."""
        self.trial_of(NodeKey(self.web.world.random.randbytes(32)), readers, wait)

    def trial_of(self, key: NodeKey, readers: int, wait: int = 60 * SECOND) -> None:
        now, publisher = self.web.world.now, self.web.world.random.choice(self.web.honest)
        body = NodeBody(now, type(now)(now + 20 * 60 * SECOND), "", ("8.8.8.8:4711",))
        blob, topic = seal("node", key, body, lambda _: bytes(64)), node_topic(key)

        def look() -> None:
            holders = [p for p in self.web.honest if p is not publisher and p.node.store.under(topic)]
            self.copies.append(len(holders))
            for _ in range(readers):
                reader = self.web.world.random.choice(self.web.honest)
                while reader is publisher or reader.node.store.under(topic):
                    reader = self.web.world.random.choice(self.web.honest)
                self._look(reader, topic, blob)

        self.web.run(publisher, publisher.node.publish(topic, blob, now, now))
        self.web.world.later(wait, look)

    def _look(self, reader: Honest, topic: bytes, blob: bytes) -> None:
        began = self.web.world.now

        def over(search: Search) -> None:
            self.found.append(blob in [record.blob for record in search.found])
            self.took.append(self.web.world.now - began)
            self.asked.append(search.asked)
            self.web.run(reader, Puts(search.repairs()))

        self.web.run(reader, reader.node.search(topic, began, began), over)

    def hostile_share(self) -> float:
        """Of the contacts in honest tables."""
        sample = self.web.world.random.sample(self.web.honest, min(200, len(self.web.honest)))
        held = [
            contact.key in self.web.peers and not isinstance(self.web.peers[contact.key], Honest)
            for each in sample
            for contact in each.node.table.all()
        ]
        return _share(held)

    def dead_share(self) -> float:
        sample = self.web.world.random.sample(self.web.honest, min(200, len(self.web.honest)))
        return _share([c.key not in self.web.peers for each in sample for c in each.node.table.all()])

    def table_size(self) -> float:
        sample = self.web.world.random.sample(self.web.honest, min(200, len(self.web.honest)))
        return sum(len(each.node.table) for each in sample) / len(sample)


def _share(of: Sequence[bool]) -> float:
    return sum(of) / len(of) if of else 0.0
