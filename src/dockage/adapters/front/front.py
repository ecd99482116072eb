"""The tenant's Docker socket: the stock ``docker`` and ``docker compose`` run containers on leases.

Counterpart: the provider's gate (``adapters/engine``), reached through ``ports.renting.Leases``. Read ``serve`` first,
then ``routes.py``, then the handlers. The rule: what the market cannot honour is refused with the reason, never
ignored. See docs/explanation/docker-front.md.
"""

from __future__ import annotations

import asyncio
import select
import socket
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.ports.machine import Clock, Journal
from dockage.ports.renting import ImageStore, Leases, Placed, Progress, Puller, Spot
from dockage.protocol.docker.front_errors import ApiError, status_of
from dockage.protocol.docker.recipe import Recipe, recipe_of
from dockage.wire.connection import Accepted, Connection
from dockage.wire.http import HttpServer, Request, error_body
from dockage.wire.tasks import spawn

from . import routes
from .books import Books
from .call import JSON
from .changes import Changes
from .engines import LeaseEngines
from .hub import EventHub
from .imagewatch import follow_images
from .local import LocalEngine
from .parts import Parts
from .placing import Placing, SendImage, Tell
from .published import Published
from .replay import Replay, adopt
from .tenancy import Tenancy
from .watch import Watch

log = structlog.get_logger("dockage.front")

CLIENTS_MAX = 512
"""Connections at once: an attached ``compose up`` holds two a service."""
IDLE = 600.0
"""Seconds that a kept connection may wait for its next request."""
BACKLOG = 128
LINGER = 5.0


class ClientStream(Accepted):
    """A client's socket. One that closed altogether (the CLI was killed), and not only its stdin, must end what it
    was attached to: at a silent container nobody would notice otherwise."""

    async def read(self, limit: int) -> bytes:
        data = await super().read(limit)
        if not data and self._has_hung_up():
            raise Unavailable("socket.closed", "the client closed its socket")
        return data

    def _has_hung_up(self) -> bool:
        if self.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)  # POLLHUP is always reported
        return bool(poll.poll(0))


class DockerFront:
    def __init__(
        self,
        socket_path: Path,
        leases: Leases,
        local_engine: Path | None,
        send_image: SendImage,
        journal: Journal,
        *,
        clock: Clock,
        bind_host: str = "127.0.0.1",
        store: ImageStore | None = None,
        puller: Puller | None = None,
        tell: Tell = lambda _deployment, _line: None,
        linger_sec: float = LINGER,
    ) -> None:
        """*local_engine*: the socket of the tenant's own engine, None if there is none; then *store* has the images,
        and *puller* gets more. *bind_host*: where published ports listen unless they name an address. *tell*: is told
        what is being done for a deployment. *linger_sec*: how long an empty deployment keeps its lease."""
        self._path, self._leases, self._send_image = socket_path, leases, send_image
        self._bind_host, self._linger, self._clock, self._tell = bind_host, linger_sec, clock, tell
        self._local = LocalEngine(local_engine, store, puller)
        self._books = Books(journal)
        self.changes = Changes(self._books)
        self._engines = LeaseEngines(leases)
        self._parts: Parts | None = None
        self.clients = 0
        """Connections that are open."""
        self.ready = asyncio.Event()
        """Set once the socket takes connections."""

    async def serve(self) -> None:
        """Until cancelled. Raises UsageError("front.busy") if another daemon answers on the socket."""
        self._books.load()
        listener = _listening(self._path)
        async with asyncio.TaskGroup() as tasks:
            parts = self._parts = self._assemble(tasks)
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: ClientStream(lambda client: self._accept(tasks, parts, client)), sock=listener
            )
            try:
                self._resume(parts)
                self.ready.set()
                await server.serve_forever()
            finally:
                self.ready.clear()
                self._parts = None
                parts.published.close_all()
                server.close()
                with suppress(FileNotFoundError):
                    self._path.unlink()

    def _assemble(self, tasks: asyncio.TaskGroup) -> Parts:
        engines = self._engines
        published = Published(self._leases, tasks, self._bind_host)
        hub = EventHub()
        tasks.create_task(follow_images(self._local, hub))
        tenancy = Tenancy(self._books, self._leases, engines, tasks, self._linger)
        watch = Watch(self._books, engines, published, hub, self._clock, tasks, tenancy.settle)
        tenancy.watch, tenancy.changes = watch, self.changes
        hands = (self._send_image, self._clock, self._tell, self.changes)
        placing = Placing(self._books, engines, self._local, tenancy, watch, *hands)
        worked_with = (self._books, engines, self._local, published, hub, watch, tenancy, placing)
        return Parts(*worked_with, self._clock, self.changes)

    def _resume(self, parts: Parts) -> None:
        """After a restart: follow every lease (which opens the ports of what runs), give empty ones back."""
        for rented in list(self._books.shelf.rented.values()):
            parts.watch.follow(rented.lease)
            parts.tenancy.settle(rented.deployment)

    # -- for a controller ----------------------------------------------------------------------------
    def deployments(self) -> Sequence[str]:
        return list(dict.fromkeys(one.deployment for one in self._books.shelf.containers.values()))

    def lease_of(self, deployment: str) -> LeaseId | None:
        rented = self._books.rented(deployment)
        return rented[-1].lease if rented else None

    def where(self, deployment: str) -> Placed:
        return {one.id: Spot(one.lease, one.remote) for one in self._books.shelf.in_deployment(deployment)}

    def recipe(self, deployment: str) -> Recipe:
        """All that is needed to set *deployment* up again elsewhere. Raises as ``recipe_of`` does."""
        return recipe_of(self._books.shelf, deployment)

    async def lacks(self, images: Iterable[str]) -> Sequence[str]:
        """Those of *images* (ids) that our user's engine, or our store, does not have."""
        return [image for image in images if not await self._has(image)]

    async def _has(self, image: str) -> bool:
        with suppress(ApiError, DockageError):
            return (await self._local.image(image)).get("Id") == image
        return False

    async def replay(
        self, recipe: Recipe, lease: LeaseId, progress: Progress, *, start: bool = True
    ) -> Placed:
        """Set *recipe* up in a lease that runs and is large enough; *start* False leaves all containers created. May be
        cut and repeated. Raises as ``Replay.set_up`` does."""
        return await Replay(self._engines, self._send_image).set_up(recipe, lease, progress, start=start)

    async def start_replayed(self, recipe: Recipe, placed: Placed, progress: Progress) -> None:
        """Start what was set up with *start* False."""
        await Replay(self._engines, self._send_image).start(recipe, placed, progress)

    async def stop_replayed(self, placed: Placed) -> None:
        await Replay(self._engines, self._send_image).stop(placed)

    async def adopt(self, deployment: str, placed: Placed) -> None:
        """From now on *deployment* is where a replay put it, for docker and for published ports. See ``replay.adopt``;
        raises Unavailable("front.closed") while the front does not serve."""
        if self._parts is None:
            raise Unavailable("front.closed", "the Docker front does not serve now; try again")
        await adopt(self._parts, deployment, placed)

    # -- clients -------------------------------------------------------------------------------------
    def _accept(self, tasks: asyncio.TaskGroup, parts: Parts, client: Connection) -> None:
        if self.clients >= CLIENTS_MAX:
            return client.cut()
        self.clients += 1
        if not spawn(tasks, self._serve_client(client, parts)):
            client.cut()

    async def _serve_client(self, stream: Connection, parts: Parts) -> None:
        server = HttpServer(stream)
        try:
            while request := await self._next(server):
                await _answer(server, request, parts)
        except (PeerError, Unavailable, TimeoutError):
            pass  # the client broke off, or could not be told more
        except Exception:
            log.exception("client.crashed")
        finally:
            self.clients -= 1
            stream.abort()

    async def _next(self, server: HttpServer) -> Request | None:
        try:
            async with asyncio.timeout(IDLE):
                return await server.read_request()
        except PeerError as error:
            await _refuse(server, 400, error.message)
            return None


async def _answer(server: HttpServer, request: Request, parts: Parts) -> None:
    """An error before the answer's head is an answer; after it, only the end of the connection can tell."""
    try:
        handler, call = routes.find(server, request)
        await handler(call, parts)
    except DockageError as error:
        if server.answering:
            raise Unavailable("front.cut", error.message) from error
        await _refuse(server, status_of(error), error.message)
    except Exception:
        log.exception("request.crashed", method=request.method, target=request.target[:200])
        if server.answering:
            raise Unavailable("front.cut", "a fault of dockage") from None
        await _refuse(server, 500, "a fault of dockage; its log tells more")


async def _refuse(server: HttpServer, status: int, message: str) -> None:
    await server.answer(status, JSON, error_body(message))


def _listening(path: Path) -> socket.socket:
    """A socket file for its owner alone; one that a dead daemon left behind is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)  # before it listens: nobody else gets in meanwhile
    except OSError as error:
        listener.close()
        raise UsageError("front.socket", f"cannot listen on {path}: {error}") from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _clear(path: Path) -> None:
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise UsageError("front.socket", f"{path} is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
            return
    raise UsageError("front.busy", f"another daemon answers on {path}")
