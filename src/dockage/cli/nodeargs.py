"""The flags of ``daemon`` and ``provide`` that override ``config.toml``, and the foreground run both share."""

from __future__ import annotations

import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from dockage.domain.errors import DockageError

from . import process
from .client import Json
from .errors import UsageError
from .process import Overrides
from .session import Session

F = TypeVar("F", bound=Callable[..., Any])

READY_SEC = 20.0
"""How long an offer may take to be listed before its provider is shown without that."""

_FLAGS: dict[str, tuple[str, str]] = {
    "bind": ("node", "bind"),
    "seeds": ("node", "seeds"),
    "market": ("node", "market"),
    "index": ("node", "index"),
    "indexes": ("node", "indexes"),
    "public": ("node", "public"),
    "regions": ("node", "regions"),
    "relays": ("node", "relays"),
    "run_relay": ("relay", "listen"),
    "lan": ("node", "lan"),
    "mainline": ("node", "mainline"),
    "docker_socket": ("tenant", "socket"),
    "bitcoin": ("bitcoin", "network"),
    "wallet": ("bitcoin", "wallet"),
    "bitcoin_peers": ("bitcoin", "peers"),
    "bitcoin_url": ("bitcoin", "url"),
    "bitcoin_cookie": ("bitcoin", "cookie"),
    "bitcoind_wallet": ("bitcoin", "bitcoind_wallet"),
    "mainnet": ("bitcoin", "i_understand_mainnet_is_experimental"),
}
"""Parameter: (section, field) of ``daemon/config.py``."""


mainnet_option = click.option(
    "--i-understand-mainnet-is-experimental",
    "mainnet",
    is_flag=True,
    default=None,
    help="Use real money, although nobody from outside has reviewed this code.",
)


def node_options(function: F) -> F:
    for option in (
        click.option("--save", is_flag=True, help="Keep what is given here in config.toml, for every start."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="SECTION.FIELD=VALUE",
            help="Any field of config.toml.",
        ),
        mainnet_option,
        click.option("--bitcoind-wallet", metavar="NAME", help="bitcoind's wallet."),
        click.option("--bitcoin-cookie", metavar="FILE", help="bitcoind's .cookie."),
        click.option("--bitcoin-url", metavar="URL", help="bitcoind's RPC."),
        click.option(
            "--bitcoin-peer",
            "bitcoin_peers",
            multiple=True,
            metavar="IP:PORT",
            help="A bitcoin node for the light wallet to ask.",
        ),
        click.option("--wallet", type=click.Choice(["bitcoind", "light"]), help="Whose coins to use."),
        click.option("--bitcoin", metavar="NETWORK", help="bitcoin, testnet4, testnet, signet or regtest."),
        click.option(
            "--docker-socket", metavar="PATH", help="Where docker talks to us; relative to the home."
        ),
        click.option("--run-relay", metavar="IP:PORT", help="Run a relay for nodes behind NATs there (TCP)."),
        click.option(
            "--relay", "relays", multiple=True, metavar="URL", help="A relay to be reachable through."
        ),
        click.option(
            "--look-in", "regions", multiple=True, metavar="REGION", help="Regions to look for offers in."
        ),
        click.option(
            "--public/--private", default=None, help="Of the public market, or one on a machine or a LAN."
        ),
        click.option(
            "--ask-index", "indexes", multiple=True, metavar="KEY@IP:PORT", help="An index to ask first."
        ),
        click.option(
            "--index/--no-index", default=None, help="Keep all offers and answer which of them fit."
        ),
        click.option("--market/--no-market", default=None, help="Store and answer for the market."),
        click.option(
            "--mainline/--no-mainline", default=None, help="Find market nodes through the BitTorrent DHT."
        ),
        click.option(
            "--lan/--no-lan", default=None, help="Find them, and your machines, on the local network."
        ),
        click.option(
            "--seed", "seeds", multiple=True, metavar="KEY@IP:PORT", help="A market node to begin with."
        ),
        click.option("--bind", metavar="IP:PORT", help="Where other nodes reach us (UDP)."),
    ):
        function = option(function)
    return function


def overrides(flags: dict[str, Any]) -> Overrides:
    """Takes the flags of ``node_options`` out of *flags*. Raises UsageError("config.set")."""
    found: Overrides = {}
    for name, (section, field) in _FLAGS.items():
        value = flags.pop(name)
        if value is not None and value != ():
            found.setdefault(section, {})[field] = list(value) if isinstance(value, tuple) else value
    for section, field, value in _settings(flags.pop("settings")):
        found.setdefault(section, {})[field] = value
    return found


def _settings(texts: tuple[str, ...]) -> Iterator[tuple[str, str, Any]]:
    for text in texts:
        name, equals, value = text.partition("=")
        section, dot, field = name.strip().partition(".")
        if not (equals and dot and section and field):
            raise UsageError("config.set", f"{text!r} is not a setting: bitcoin.poll_sec=2 is")
        yield section, field, _value(value)


def _value(text: str) -> Any:
    """As in TOML, where a plain word needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def check(home: Path, wanted: Overrides) -> None:
    """Raises UsageError("config.*") here and now, rather than in the log of a process in the background."""
    from dockage.daemon import loading

    loading.load(home, wanted)


def keep(session: Session, wanted: Overrides, *, save: bool) -> None:
    """Write *wanted* down if our user said so; else say that it is not."""
    from dockage.daemon import saving

    if save:
        names = saving.save(session.home, wanted)
        session.say(f"written to {session.home}/config.toml: {', '.join(names) or 'nothing new'}")
    elif names := saving.unsaved(session.home, wanted):
        session.say(f"for this run only: {', '.join(names)}; --save keeps it in config.toml for every start")


def run(
    session: Session, wanted: Overrides, ready: Callable[[Json], bool], tell: Callable[[Json], None]
) -> None:
    """Run the node here until Ctrl-C; *tell* is called once, when its status is *ready*."""
    from dockage.daemon import memory

    with memory.importing():
        from dockage.daemon import system

    log_to_stderr()
    over = threading.Event()
    teller = threading.Thread(target=_tell_when_up, args=(session, ready, tell, over), daemon=True)
    teller.start()
    try:
        system.main(session.home, wanted)
    finally:
        over.set()
        teller.join(process.POLL_SEC * 10)


def log_to_stderr() -> None:
    """Ours is the only answer on stdout."""
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def _tell_when_up(
    session: Session, ready: Callable[[Json], bool], tell: Callable[[Json], None], over: threading.Event
) -> None:
    status = wait_ready(session, ready, over.wait)
    if status is not None and not over.is_set():
        tell(status)


def wait_ready(
    session: Session, ready: Callable[[Json], bool], pause: Callable[[float], Any] = time.sleep
) -> Json | None:
    """The first status that is *ready*, or after READY_SEC whatever there is."""
    until, status = time.monotonic() + READY_SEC, None
    while (status is None or time.monotonic() < until) and not (status and ready(status)):
        try:
            status = session.client.get("status", timeout=process.START_SEC)
        except DockageError:
            if time.monotonic() >= until + process.START_SEC:
                return None
        if pause(process.POLL_SEC):  # the node ended meanwhile
            return None
    return status
