"""How many bytes our connections carried through a relay: what the relay's bill is compared with.

The transport has counters for each path of a connection; they are summed here over all connections, those that have
ended too. What passes between the last look and a path's end is missed: the bill's allowance is larger.
"""

from __future__ import annotations

from collections.abc import Iterable

from .book import Line

URLS_MAX = 64


class Tally:
    def __init__(self) -> None:
        self._totals: dict[str, list[int]] = {}

    def of(self, url: str, lines: Iterable[Line]) -> tuple[int, int]:
        """(sent, received), since this was first asked."""
        if url not in self._totals:
            while len(self._totals) >= URLS_MAX:
                del self._totals[next(iter(self._totals))]
            total = self._totals[url] = [0, 0]
            self._look_at_all(lines)
            total[:] = 0, 0  # what was before is nobody's
        self._look_at_all(lines)
        sent, received = self._totals[url]
        return sent, received

    def _look_at_all(self, lines: Iterable[Line]) -> None:
        for line in lines:
            self.look(line)

    def look(self, line: Line) -> None:
        """Also once a line has ended: its last bytes."""
        for path in line.connection.paths() if self._totals else ():
            if not path.is_relay:
                continue
            now = path.stats.udp_tx_bytes, path.stats.udp_rx_bytes
            before = line.paths.get(path.id, (0, 0))
            line.paths[path.id] = now
            if (total := self._totals.get(path.remote_addr)) is not None:
                total[0] += max(0, now[0] - before[0])
                total[1] += max(0, now[1] - before[1])
