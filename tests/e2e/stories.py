"""What the stories share: the site, looking at a lease from both sides, waiting."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Any

from devtools.localmarket import LocalMarket, NodeProcess
from devtools.regtest import free_port
from devtools.shell import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = str(ROOT / "examples" / "site" / "compose.yaml")
IMAGE = "dockage/base:bookworm"


def fetch(port: int) -> int:
    """The status of GET /, 0 for no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


class Site:
    """``examples/site``, up on a provider of *market*."""

    def __init__(self, market: LocalMarket, project: str) -> None:
        self.market, self.project, self.port = market, project, free_port()

    def compose(self, *arguments: str) -> str:
        os.environ["SITE_PORT"] = str(self.port)
        return self.market.docker("compose", "-f", SITE, "-p", self.project, *arguments).stdout

    def __enter__(self) -> Site:
        self.compose("build")
        self.compose("up", "-d", "--no-build", "--pull", "never")
        assert wait_until(self.answers, 20), "the site does not answer"
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down")
        assert wait_until(lambda: self.lease()["state"] == "ended", 30), self.lease()

    def answers(self) -> bool:
        return fetch(self.port) == 200

    def lease(self) -> dict[str, Any]:
        """The newest lease of this deployment, as the tenant sees it."""
        leases = self.market.tenant.ask("GET", "/v1/spend")["leases"]
        return next(x for x in reversed(leases) if x["deployment"] == self.project)

    @property
    def provider(self) -> NodeProcess:
        key = self.lease()["provider"]
        return next(n for n in self.market.providers.values() if not n.process_ended() and n.key == key)

    def sold(self) -> dict[str, Any]:
        """The same lease, as its provider sees it."""
        lease = self.lease()["lease"]
        leases = self.provider.ask("GET", "/v1/earnings")["leases"]
        return next(x for x in leases if x["lease"] == lease)

    def ticks(self, more: int) -> None:
        """Wait until *more* further ticks are agreed on."""
        target = self.lease()["ticks"] + more
        assert wait_until(lambda: self.lease()["ticks"] >= target, more * 3 + 20), self.lease()


def channel(node: NodeProcess, peer: str) -> dict[str, Any]:
    """The newest channel of *node* to *peer*."""
    shown = node.ask("GET", "/v1/channels")["channels"]
    return next(c for c in reversed(shown) if c["peer"] == peer)


def close_channel(market: LocalMarket, provider: NodeProcess, mine: str = "") -> None:
    """Close *mine*, by default the newest channel to *provider*, and wait until both sides see it settled."""
    assert wait_until(lambda: all(x["state"] == "ended" for x in leases(market)), 20)
    mine = mine or channel(market.tenant, provider.key)["channel"]
    market.tenant.ask("POST", f"/v1/channels/{mine}/close")

    def settled() -> bool:
        sides = [*channels(market.tenant), *channels(provider)]
        return all(c["settled"] for c in sides if c["channel"] == mine)

    assert wait_until(settled, 40)


def leases(market: LocalMarket) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = market.tenant.ask("GET", "/v1/spend")["leases"]
    return shown


def channels(node: NodeProcess) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = node.ask("GET", "/v1/channels")["channels"]
    return [c for c in shown if c["state"] != "abandoned"]
