"""Short questions, asked and answered without waking the task of their connection: it costs as much as all the rest.

Counterpart: ``visit.py``, whose task takes over what turns out otherwise: an answer that is long or comes in pieces, a
replica that dies, a client that leaves or asks on. The rule: here nothing is refused, tried again or cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dockage.domain.errors import PeerError, Unavailable
from dockage.protocol import forwarding as http
from dockage.protocol.forwarding import RequestHead

from .door import ANSWER_SEC, HEAD_END, IDLE_SEC, Door

if TYPE_CHECKING:
    from .web import Ready, Web


class Asked(NamedTuple):
    """A question that is under way without a task."""

    ready: Ready
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
        if self._asked is not None or data.find(HEAD_END) != len(data) - 4 or self._door.is_full:
            return False
        try:
            request = http.parse_request(data)
        except PeerError:
            return False
        of = request.fields
        if of.framing.length or of.expects or not of.keep_alive or not request.may_repeat:
            return False
        ready = self._web.ready(of.host)
        if ready is None:
            return False
        head = http.request_bytes(request, self._door.client, self._scheme, trusted=self._trusted)
        if not ready.upstream.ask(head, self._came):
            ready.upstream.abort()
            return False
        asked = self._asked = Asked(ready, request, head, self._web.now())
        ready.live.entered(ready.site, ready.backend, asked.at)
        ready.backend.waiting.add(ready.upstream)
        self._door.upstream, self._door.is_late = ready.upstream, False
        self._door.within(ANSWER_SEC)
        return True

    def _came(self, data: bytes) -> bool:
        """Of the replica. What is not the whole answer is the task's to read."""
        asked = self._asked
        if asked is None:
            return False
        answer = _whole_answer(data, asked.request)
        if not answer:
            self._door.call()
            return False
        live, site, backend, upstream = asked.ready
        self._asked = self._door.upstream = None
        upstream.heard(data)
        backend.waiting.discard(upstream)
        self._web.answered(live, backend)
        try:
            self._door.put(answer)
        except Unavailable:
            pass  # the client is gone
        self._door.within(IDLE_SEC)
        live.left(site, backend)
        self._web.keep(backend, upstream)
        return True

    def take(self) -> Asked | None:
        """What is under way, to be gone on with by who takes it."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.ready.upstream.hand_over()
        return asked

    def end(self) -> None:
        """What is under way ends with the connection."""
        asked, self._door.quick = self.take(), None
        if asked is not None:
            live, site, backend, upstream = asked.ready
            upstream.abort()
            backend.waiting.discard(upstream)
            live.left(site, backend)


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
