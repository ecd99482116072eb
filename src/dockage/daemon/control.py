"""The local control API: JSON over a unix socket that only the owner may open. Counterpart: ``cli/client.py``.

Reference: docs/reference/control-api.md. Errors are ``{"code": ..., "message": ...}`` with status 400 for what the
user can mend, 404 for what is not there, 503 for a part that does not answer now.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from aiohttp import web

from dockage import __version__
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.units import SECOND, since

from . import (
    control_deputies,
    control_gateway,
    control_keeping,
    control_machines,
    control_market,
    control_money,
    control_provider,
    control_public,
    views,
)
from .control_words import NotFound, find, reply
from .node import Node

log = structlog.get_logger("dockage.control")

BODY_MAX = 64 * 1024
SHUTDOWN_SEC = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


PARTS = (
    control_machines.routes,
    control_gateway.routes,
    control_market.routes,
    control_provider.routes,
    control_money.routes,
    control_keeping.routes,
    control_deputies.routes,
    control_public.routes,
)


class Control:
    def __init__(self, node: Node, socket: Path) -> None:
        self._node, self._socket = node, socket

    async def serve(self) -> None:
        """Until cancelled; removes the socket at the end."""
        app = web.Application(client_max_size=BODY_MAX, middlewares=[_errors])
        for part in PARTS:
            app.add_routes(part(self._node))
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/progress", self._progress),
                web.post("/v1/leases/{lease}/end", self._end_lease),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SEC)
        await runner.setup()
        try:
            await web.SockSite(runner, _bound(self._socket)).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
            self._socket.unlink(missing_ok=True)

    # -- the node ------------------------------------------------------------------------------------
    async def _status(self, _: web.Request) -> web.Response:
        node = self._node
        address = node.link.address()
        return reply(
            {
                "version": __version__,
                "node": node.keys.node.hex(),
                "home": str(node.home),
                "addresses": list(address.direct),
                "relay": address.relay,
                "paid_relay": views.paid_relay(node.reached.paid, node.clock.now()),
                "runs_relay": node.relay()._asdict() if node.relay else None,
                "uptime_sec": since(node.started, node.clock.now()) // SECOND,
                "market_node": node.config.node.market,
                "provider": control_provider.status(node),
                "tenant": {"socket": str(node.home / node.config.tenant.socket)}
                if node.config.tenant.enabled
                else None,
                "bitcoin": await control_money.status(node),
                "market": views.entrance(node.entrance) if node.entrance else None,
                "machines": len(node.machines),
                "refused": dict(node.reception.refused),
            }
        )

    async def _progress(self, _: web.Request) -> web.Response:
        steps = self._node.steps.all()
        return reply({"deployments": [{"deployment": name, "step": line} for name, line in steps.items()]})

    async def _end_lease(self, request: web.Request) -> web.Response:
        lease = find(request.match_info["lease"], self._node.tenant.state.leases)
        await self._node.renting.release(lease)
        return reply(views.rented(self._node.tenant.state.leases[lease], self._node.clock.now()))


def _bound(path: Path) -> socket.socket:
    """Not yet listening when its mode is set: nobody else gets in meanwhile, and no thread's umask is touched."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        bound.close()
        raise UsageError("control.socket", f"cannot listen on {path}: {error}") from None
    return bound


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except UsageError as error:
        status = 404 if isinstance(error, NotFound) else 400
        return reply({"code": error.code, "message": error.message}, status=status)
    except Unavailable as error:
        return reply({"code": error.code, "message": error.message}, status=503)
    except DockageError as error:
        return reply({"code": error.code, "message": error.message}, status=502)
    except web.HTTPException as error:
        return reply({"code": "control.http", "message": error.text or error.reason}, status=error.status)
    except Exception:
        log.exception("control.crashed", path=request.path)
        return reply(
            {"code": "control.crashed", "message": "a fault of dockage; its log says more"}, status=500
        )
