"""Short questions, asked and answered without waking the task of their connection: it costs as much as all the rest.

Counterpart: ``visit.py``, whose task takes over what turns out otherwise: an answer that is long or comes in pieces, a
replica that dies, a client that leaves or asks on. The rule: here nothing is refused, tried again or cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dockage.domain.errors import PeerError, Unavailable
from dockage.protocol import forwarding as http
from dockage.protocol.forwarding import IDEMPOTENT, RequestHead

from .door import ANSWER_SEC, HEAD_END, IDLE_SEC, Door

if TYPE_CHECKING:
    from .live import Way
    from .upstream import Upstream
    from .web import Web


class Asked(msgspec.Struct, frozen=True):
    """A question that is under way without a task."""

    way: Way
    upstream: Upstream
    request: RequestHead
    head: bytes
    """As the replica has it."""
    at: float


class Quick:
    """Of one client's connection."""

    def __init__(self, web: Web, door: Door, scheme: str, *, trusted: bool) -> None:
        self._web, self._door, self._scheme, self._trusted = web, door, scheme, trusted
        self._asked: Asked | None = None
        door.quick = self.offered

    def offered(self, data: bytes) -> bool:
        """Whether *data* is one whole request, and asked already; if not, nothing has happened."""
        door = self._door
        if self._asked is not None or data.find(HEAD_END) != len(data) - 4 or door.is_full:
            return False
        try:
            request = http.parse_request(data)
        except PeerError:
            return False
        fields, now = request.fields, self._web.now()
        if not fields.is_plain or request.method not in IDEMPOTENT:
            return False
        ready = self._web.ready(fields.host, now)
        if ready is None:
            return False
        way, upstream = ready
        head = http.request_bytes(request, door.client, self._scheme, trusted=self._trusted)
        if not upstream.ask(head, self._came):
            upstream.abort()
            return False
        self._asked = Asked(way, upstream, request, head, now)
        way.entered(upstream.backend, now)
        upstream.backend.waiting.add(upstream)
        door.upstream, door.is_late, door.deadline = upstream, False, now + ANSWER_SEC
        return True

    def _came(self, data: bytes) -> bool:
        """Of the replica. What is not the whole answer is the task's to read."""
        asked = self._asked
        if asked is None:
            return False
        door, answer = self._door, _whole_answer(data, asked.request)
        if not answer:
            door.call()
            return False
        way, upstream, now = asked.way, asked.upstream, self._web.now()
        self._asked = door.upstream = None
        upstream.heard(data)
        upstream.backend.waiting.discard(upstream)
        way.live.answered(upstream.backend, now)
        try:
            door.put(answer)
        except Unavailable:
            pass  # the client is gone
        door.deadline = now + IDLE_SEC
        way.left(upstream.backend)
        self._web.keep(upstream, now)
        return True

    def take(self) -> Asked | None:
        """What is under way, to be gone on with by who takes it."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.upstream.hand_over()
        return asked

    def end(self) -> None:
        """What is under way ends with the connection."""
        asked, self._door.quick = self.take(), None
        if asked is not None:
            asked.upstream.abort()
            asked.upstream.backend.waiting.discard(asked.upstream)
            asked.way.left(asked.upstream.backend)


def _whole_answer(data: bytes, request: RequestHead) -> bytes:
    """As the client gets it; b"" if *data* is not one whole answer that leaves the connection open."""
    end = data.find(HEAD_END) + 4
    if end < 4:
        return b""
    try:
        response = http.parse_response(data[:end], request.method)
    except PeerError:
        return b""
    if response.status < 200 or not response.keep_alive or response.framing.length != len(data) - end:
        return b""
    return http.response_bytes(response, keep_alive=True) + data[end:]
