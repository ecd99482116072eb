"""Puts a node together: which adapter stands behind which port.

Nothing here decides anything. ``main`` runs a node until it is told to stop; ``assemble`` is the whole picture. The
parts that take more than a line: ``network``, ``nat``, ``money``, ``provider``, ``gateway``, ``front``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from dockage.adapters.keys.files import FileKeys
from dockage.adapters.proofs.folder import ProofFolder
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.adapters.system.clock import SystemClock
from dockage.adapters.system.machine import architecture
from dockage.adapters.system.notify import Notifier
from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.node.records import HISTORY
from dockage.ports.hosting import ContainerHost, Resolver
from dockage.ports.machine import Clock
from dockage.ports.peers import Directory
from dockage.protocol import proof as proofs
from dockage.protocol.proof import Proven
from dockage.wire.keys import verify

from . import config as settings
from . import front, loading, logs, memory, money, nat, network, provider
from .config import Config
from .contacts import Contacts
from .control import Control
from .ground import Ground, Loop
from .home import locked
from .metrics import Metrics, listen
from .node import Node
from .peers import Reception
from .supervised import supervised
from .timekeeping import Timekeeping, has_leases
from .wiring import wire

if TYPE_CHECKING:
    from dockage.adapters.gateway.host import GatewayHost

log = structlog.get_logger("dockage.node")

CONTROL_SOCKET = "control.sock"
PROOFS = "proofs"
AGAIN_SEC = 1.0
"""Before it is started anew: what fails at once would else fail all the time."""


def main(home: Path, overrides: dict[str, dict[str, Any]] | None = None) -> None:
    """Run a node until SIGINT or SIGTERM. Raises UsageError for what the user can mend."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs.configure()
    config = loading.load(home, overrides)
    try:
        with locked(home), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(home, config))
    except BaseExceptionGroup as group:
        if group.subgroup(_is_lost) is None:
            raise
        start_anew()


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, Unavailable) and error.code == "link.lost"


def start_anew() -> None:
    """In this process's place, so whoever watches it sees no end. Leases go on meanwhile, as in any restart."""
    log.warning("node.again", why="the peer link gave up")
    time.sleep(AGAIN_SEC)
    os.execv(sys.executable, sys.orig_argv)


async def run(home: Path, config: Config) -> None:
    async with assemble(home, config) as (node, loops):
        memory.settle()
        log.info("node.up", node=node.keys.node.hex(), home=str(home))
        await _until_told(loops)
        log.info("node.down")


async def _until_told(loops: Sequence[Loop]) -> None:
    """Everything below runs until a signal comes; leases go on without us until the next start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_run(work)) for work in loops]
        await stop.wait()
        for task in running:
            task.cancel()


async def _run(work: Loop) -> None:
    await work()


@asynccontextmanager
async def assemble(home: Path, config: Config) -> AsyncIterator[tuple[Node, Sequence[Loop]]]:
    """The node, and what must run while it lives."""
    async with AsyncExitStack() as stack:
        clock, entered = SystemClock(), asyncio.Event()
        keys = FileKeys(home / "identity.key")
        journal = SqliteJournal(home / "state.db")
        stack.callback(journal.close)
        rows = list(journal.load(without=HISTORY))
        link = await network.open_link(config, keys, rows, journal)
        stack.push_async_callback(link.close)
        reception = Reception(keys, asyncio.get_running_loop().time)
        relay = nat.open_relay(config, stack)
        tolls = relay.tolls if relay else None
        nat.answer_observers(config, link, reception)
        directory = network.open_directory(config, keys, clock, link, reception)
        rail, beside = await money.open_rail(home, config.bitcoin, keys, clock, stack)
        if rail is not None:
            money.refuse_foreign_channels(rail, rows, keys.node)
        gate, resolver, at_gate = _gateway(home, config.gateway, directory, clock)
        host: ContainerHost | None = None
        if config.provider.enabled:
            host = gate or tolls or await provider.docker_host(home, config.provider, stack)
        seeds = [settings.read_seed(text) for text in config.node.seeds]
        contacts = Contacts(
            rows, journal, clock, directory.bootstrap, directory.contacts, seeds, bound=config.node.public
        )
        ground = Ground(
            home=home,
            config=config,
            keys=keys,
            clock=clock,
            journal=journal,
            evidence=ProofFolder(home / PROOFS),
            rows=rows,
            link=link,
            reception=reception,
            directory=directory,
            entered=entered,
            rail=rail,
            host=host,
            prices=provider.prices(config.provider, config.peg),
            prober=front.prober if config.tenant.checks else None,
            rand=SystemRandom(),
            architecture=architecture(),
            new_pake=network.new_pake,
            relay=relay.relay.figures if relay else None,
            neighbours=network.neighbours(config),
            contacts=contacts,
            square=network.public_square(config, keys.node, link),
            hostname=network.hostname(),
            gateway=gate,
            resolver=resolver,
            tolls=tolls,
        )
        node, loops = wire(ground, provider.policy(config, await host.facts()) if host is not None else None)
        if node.notice is not None:
            stack.push_async_callback(node.notice.leave)

        loops += [*beside(node), Timekeeping(clock, partial(has_leases, node)).run]
        loops.append(partial(network.keep_board, directory, entered))
        loops += at_gate
        loops += [relay.serve] if relay else []
        if nat.wants_relays(config):
            loops += nat.find_ourselves(
                node, link, partial(network.observers, seeds, directory), stack, (journal, rows)
            )
        loops += _faces(node, stack)
        if config.tenant.enabled:
            loops += front.open_front(node, journal, stack)
        yield node, loops


def _gateway(
    home: Path, wanted: settings.Gateway, directory: Directory, clock: Clock
) -> tuple[GatewayHost | None, Resolver | None, Sequence[Loop]]:
    if not wanted.enabled:
        return None, None, ()
    from . import gateway  # most nodes are none, and do without its code

    return gateway.open_gateway(home, wanted, directory, clock)


def _faces(node: Node, stack: AsyncExitStack) -> list[Loop]:
    """For our user, the service manager and Prometheus."""
    socket = node.home / CONTROL_SOCKET
    loops: list[Loop] = [
        Control(node, socket).serve,
        partial(supervised, node, socket, Notifier.taken_from(os.environ)),
    ]
    if node.config.node.metrics:
        listening = stack.enter_context(listen(node.config.node.metrics))
        loops.append(Metrics(node, listening).serve)
    return loops


def verify_proof(data: bytes) -> Proven:
    """Raises UsageError("proof.*"); no daemon and no home is needed for it."""
    return proofs.check(proofs.decode(data), verify)


def identity(home: Path) -> NodeKey:
    """The node's key, made now if the home has none yet; no daemon is needed for it."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return FileKeys(home / "identity.key").node
