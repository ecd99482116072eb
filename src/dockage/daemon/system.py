"""Puts a node together: the only module that knows which adapter stands behind which port.

Nothing here decides anything. ``main`` runs a node until it is told to stop; ``assemble`` is the whole picture.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import platform
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import SystemRandom
from typing import Any

import structlog
import uvloop

from dockage.adapters.bitcoind.chain import BitcoindChain
from dockage.adapters.bitcoind.rpc import Rpc, RpcAddress
from dockage.adapters.bitcoind.wallet import BitcoindWallet
from dockage.adapters.dht.directory import KademliaDirectory
from dockage.adapters.engine.gate import EngineGate
from dockage.adapters.front.front import DockerFront
from dockage.adapters.host.host import DockerHost
from dockage.adapters.images import EngineImages, ImageSender, LeftImages, OwnImages, Pulling, WithLeft
from dockage.adapters.keys.files import FileKeys, verify
from dockage.adapters.link.link import IrohLink
from dockage.adapters.prices.command import CommandRate
from dockage.adapters.prices.fixed import ByUse, Fixed
from dockage.adapters.prices.pegged import Bounds, FixedRate, Pegged
from dockage.adapters.probe.prober import LeaseProber, ProbeImage, program
from dockage.adapters.proofs.folder import ProofFolder
from dockage.adapters.secp.btclib import Secp
from dockage.adapters.secp.keys import ChannelKeys
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.adapters.system.clock import SystemClock
from dockage.adapters.system.notify import Notifier
from dockage.domain.channel import RESERVE
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.resources import Resources
from dockage.domain.units import MIB, SECOND, Duration, Sat, micro, msat
from dockage.node import records
from dockage.node.policy import ProviderPolicy
from dockage.node.records import HISTORY
from dockage.ports.hosting import HostFacts, PricePolicy, Prober
from dockage.ports.machine import Journal, Row
from dockage.ports.peers import Address, Neighbours, Pake, PublicSquare, Stream
from dockage.ports.renting import Progress
from dockage.protocol import proof as proofs
from dockage.protocol import streams
from dockage.protocol.images import Source
from dockage.protocol.pairing import NAME_MAX
from dockage.protocol.probe import Image
from dockage.protocol.proof import Proven
from dockage.wire.ahead import Headed
from dockage.wire.frames import frame

from . import config as settings
from . import gateway, logs, memory, nat
from .config import Config
from .contacts import Contacts
from .control import Control
from .home import locked
from .metrics import Metrics, listen
from .node import Node
from .ondisk import on_disk
from .peers import Reception
from .presence import lan_missing
from .rail import Rail, Role
from .seeds import Seeds
from .supervised import supervised
from .timekeeping import Timekeeping, has_leases
from .updating import attend
from .wiring import Ground, IntoLease, Loop, wire

log = structlog.get_logger("dockage.node")

CONTROL_SOCKET = "control.sock"
PROOFS = "proofs"
LINK_PORT = "link-port"
RESOLV_CONF = Path("/etc/resolv.conf")


def main(home: Path, overrides: dict[str, dict[str, Any]] | None = None) -> None:
    """Run a node until SIGINT or SIGTERM. Raises UsageError for what the user can mend."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs.configure()
    config = settings.load(home, overrides)
    with locked(home), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(home, config))


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
        link = await _link(config, keys, rows, journal)
        stack.push_async_callback(link.close)
        reception = Reception(keys, asyncio.get_running_loop().time)
        relay = nat.open_relay(config, stack)
        nat.answer_observers(config, link, reception)
        directory = _directory(config, keys, clock, link, reception)
        rail, beside = await _rail(home, config, keys, clock, stack)
        if rail is not None:
            refuse_foreign_channels(rail, rows, keys.node)
        gate = gateway.make(home, config.gateway, clock) if config.gateway.enabled else None
        sells = config.provider.enabled
        tolls = relay and relay.tolls
        host = (gate or tolls or await _host(home, config, stack)) if sells else None
        seeds = [settings.read_seed(text) for text in config.node.seeds]
        contacts = Contacts(
            rows, journal, clock, directory.bootstrap, directory.contacts, seeds, bound=config.node.public
        )
        ground = Ground(
            home,
            config,
            keys,
            clock,
            journal,
            ProofFolder(home / PROOFS),
            rows,
            link,
            reception,
            directory,
            entered,
            rail,
            host,
            _prices(config),
            _prober if config.tenant.checks else None,
            SystemRandom(),
            platform.machine(),
            _new_pake,
            relay.relay.figures if relay else None,
            _neighbours(config),
            contacts,
            _square(config, keys.node, link),
            _hostname(),
            gate,
            gateway.resolver(config.gateway),
            tolls,
        )
        node, loops = wire(ground, _policy(config, await host.facts()) if host is not None else None)
        if node.notice is not None:
            stack.push_async_callback(node.notice.leave)
        loops += [*beside(node), Timekeeping(clock, partial(has_leases, node)).run]
        loops += gateway.name_server(home, config.gateway, gate, directory, clock) if gate is not None else []
        loops += [*([relay.serve] if relay else []), _board(directory, entered)]
        if nat.wants_relays(config):
            loops += nat.find_ourselves(node, link, partial(_known, seeds, directory), stack, (journal, rows))
        loops.append(Control(node, home / CONTROL_SOCKET).serve)
        loops.append(partial(supervised, node, home / CONTROL_SOCKET, Notifier.taken_from(os.environ)))
        if config.node.metrics:
            listening = stack.enter_context(listen(config.node.metrics))
            loops.append(Metrics(node, listening).serve)
        if config.tenant.enabled:
            front = _front(home, config, node, journal, stack)
            loops += [front.serve, partial(_attached, node, front)]
        yield node, loops


# -- parts -------------------------------------------------------------------------------------------
async def _link(config: Config, keys: FileKeys, rows: Sequence[Row], journal: Journal) -> IrohLink:
    """With port 0, the port of the last run if it is free: peers find us again at once after a restart."""
    host, _, port = config.node.bind.rpartition(":")
    last = next((r.value.decode() for r in rows if r.kind == LINK_PORT), "0")
    relayed = nat.wants_relays(config)
    try:
        link = await IrohLink.create(keys.seed, f"{host}:{last if port == '0' else port}", relayed)
    except Unavailable:
        if port != "0" or last == "0":
            raise
        link = await IrohLink.create(keys.seed, config.node.bind, relayed)
    if link.address().direct:
        _, _, bound = link.address().direct[0].rpartition(":")
        await on_disk(journal.write, [Row(LINK_PORT, b"", bound.encode())])
    return link


def _new_pake(password: str, parties: tuple[bytes, bytes], *, first: bool) -> Pake:
    from dockage.adapters.pairing import SpakeSide  # a third of a second, for what a node does once a year

    return SpakeSide(password, parties, first=first)


def _neighbours(config: Config) -> Callable[[], Neighbours] | None:
    """None without the extra. Nothing is imported or listened to before it is wanted."""
    if find_spec("zeroconf") is None:
        if config.node.lan:
            raise lan_missing()
        return None

    def make() -> Neighbours:
        from dockage.adapters.lan import LanNeighbours

        return LanNeighbours(config.node.lan_interfaces)

    return make


def _hostname() -> str:
    """As far as other machines may show it."""
    printable = "".join(x for x in platform.node().partition(".")[0] if x.isprintable())
    return printable[:NAME_MAX] or "machine"


async def _rail(
    home: Path, config: Config, keys: FileKeys, clock: SystemClock, stack: AsyncExitStack
) -> tuple[Rail | None, Callable[[Node], list[Loop]]]:
    """And what must run beside it, once there is a node."""
    bitcoin, curve = config.bitcoin, Secp()
    if not bitcoin.network:
        return None, _no_loops
    if bitcoin.wallet == "light":
        from . import light  # BDK is an extra, and takes a while to import

        client, chain, wallet = light.open_wallet(home, bitcoin, clock)
        rail = Rail(curve, ChannelKeys(client.seed.channels(), curve), chain, wallet, bitcoin.feerate_max)
        return rail, partial(light.loops, client)
    rpc = Rpc(_rpc_address(bitcoin), network=bitcoin.network)
    stack.push_async_callback(rpc.close)
    name = bitcoin.bitcoind_wallet
    seen = BitcoindChain(rpc, name, bitcoin.feerate_max)
    own = ChannelKeys(keys.seed, curve)
    return Rail(curve, own, seen, BitcoindWallet(rpc, name), bitcoin.feerate_max), _no_loops


def _no_loops(_: Node) -> list[Loop]:
    return []


def refuse_foreign_channels(rail: Rail, rows: Sequence[Row], me: NodeKey) -> None:
    """With another wallet's seed we could neither close nor refund what is open: better not to start."""
    roles: dict[str, Role] = {records.PAYING: "tenant", records.EARNING: "provider"}
    open_ = [(roles[r.kind], records.decode_channel(r.value)) for r in rows if r.kind in roles]
    lost = [c for role, c in open_ if c.txid and not c.is_over and not rail.holds(role, c, me)]
    if lost:
        raise UsageError(
            "wallet.other-keys",
            f"{len(lost)} channels of this home (the first is {lost[0].id.hex()[:8]}) were opened with another wallet: "
            "set bitcoin.wallet back, or restore that wallet's words, until they are closed",
        )


def _rpc_address(bitcoin: settings.Bitcoin) -> RpcAddress:
    cookie = Path(bitcoin.cookie).expanduser() if bitcoin.cookie else None
    return RpcAddress(bitcoin.url, bitcoin.user, bitcoin.password, cookie)


def _policy(config: Config, facts: HostFacts) -> ProviderPolicy:
    sells, port = config.provider, nat.paid_port(config)
    for warning in facts.warnings:
        log.warning("host.warning", what=warning)
    return ProviderPolicy(
        tariff=settings.tariff(config),
        capacity=facts.capacity if config.gateway.enabled or port else _for_sale(sells, facts.capacity),
        region=sells.region,
        architecture=facts.architecture,
        network=config.bitcoin.network,
        free_for=tuple(settings.read_key(key) for key in sells.free_for),
        only_for=tuple(settings.read_key(key) for key in sells.only_for if key != settings.OWN),
        only_own=settings.only_own(sells),
        blocked=frozenset(settings.read_key(key) for key in sells.blocked),
        credit_sat=Sat(sells.credit_sat),
        ingress=gateway.ingress(config.gateway),
        relay_port=port,
        setup_sat=Sat(sells.setup_sat or (RESERVE if config.bitcoin.wallet == "light" else 0)),
        credit_max_sat=Sat(sells.credit_max_sat),
        credit_total_sat=Sat(sells.credit_total_sat),
        min_msat_hour=msat(Sat(sells.min_sat_hour)),
        patience=Duration(sells.patience_sec * SECOND),
        grace=Duration(sells.grace_sec * SECOND),
    )


def _prices(config: Config) -> PricePolicy:
    sells, peg = config.provider, config.peg
    match sells.price_policy:
        case "utilisation":
            return ByUse(sells.price_empty_percent, sells.price_full_percent)
        case "pegged":
            rate = CommandRate(peg.command, peg.timeout_sec) if peg.command else FixedRate(micro(peg.rate))
            low, high = settings.rate_bounds(peg)
            bounds = Bounds(micro(peg.reference), low, high, float(peg.max_age_sec))
            return Pegged(rate, bounds, peg.every_sec, time.monotonic)
        case _:
            return Fixed()


def _prober(engine: IntoLease, layers: IntoLease) -> Prober:
    """Offers are looked for on our own processor's kind, so the probe is of that kind."""

    async def send(lease: LeaseId, image: Image) -> None:
        await ImageSender(ProbeImage(image)).send(lambda: layers(lease), image.manifest.image)

    machine = platform.machine()
    return LeaseProber(engine, send, program(machine), machine, time.monotonic)


def _for_sale(sells: settings.Provider, machine: Resources) -> Resources:
    share = sells.share_percent
    return Resources(
        sells.cpu_milli or machine.cpu_milli * (share or 100) // 100,
        sells.memory_mib * MIB or machine.memory_bytes * (share or 75) // 100,
        sells.disk_mib * MIB or machine.disk_bytes * (share or 50) // 100,
    )


async def _host(home: Path, config: Config, stack: AsyncExitStack) -> DockerHost:
    engine = Path(config.provider.engine)
    sells = config.provider
    host = DockerHost(
        engine,
        home / "leases",
        secrets.token_hex(8),
        firewall=sells.firewall,
        resolvers=sells.resolvers or _resolvers(RESOLV_CONF),
    )
    await host.start()
    stack.push_async_callback(host.close)
    # The gate needs the host for its names and volumes, the host needs the gate to serve: joined here.
    gate = EngineGate(engine, host)
    stack.push_async_callback(gate.close)
    host.gate = gate
    return host


def _resolvers(path: Path) -> tuple[str, ...]:
    """The machine's name servers, such as a home router: they lie behind the leases' firewall, and port 53 of these
    stays open, or containers could resolve nothing."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ()
    named = [line.split()[1] for line in lines if line.startswith("nameserver ") and len(line.split()) > 1]
    return tuple(x for x in named if _is_elsewhere(x))


def _is_elsewhere(address: str) -> bool:
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _directory(
    config: Config, keys: FileKeys, clock: SystemClock, link: IrohLink, reception: Reception
) -> KademliaDirectory:
    header = frame(streams.encode_header(streams.Directory()))

    async def open_stream(peer: NodeKey) -> Stream:
        return Headed(await link.open(peer, 5.0), header)

    directory = KademliaDirectory(
        node=keys.node,
        verify=keys.verify,
        clock=clock,
        open_stream=open_stream,
        learn=link.learn,
        address=link.address,
        rand=SystemRandom(),
        server=config.node.market,
        bound=config.node.public,
        seen=link.seen,
    )

    async def serve(peer: NodeKey, _header: streams.Directory, stream: Stream) -> None:
        await directory.serve_stream(peer, stream)

    reception.serve_kind(streams.Directory, serve)
    return directory


def _known(
    seeds: Sequence[tuple[NodeKey, Address]], directory: KademliaDirectory
) -> Sequence[tuple[NodeKey, Address]]:
    return [*seeds, *directory.contacts()]


def _board(directory: KademliaDirectory, entered: asyncio.Event) -> Loop:
    async def keep_up() -> None:
        await entered.wait()
        await directory.run()

    return keep_up


def _square(config: Config, me: NodeKey, link: IrohLink) -> PublicSquare | None:
    """None unless our user wants it."""
    wanted = config.node
    if not wanted.mainline:
        return None
    try:
        from dockage.adapters.mainline import MainlineSquare
    except ImportError:
        raise UsageError(
            "mainline.missing",
            "the BitTorrent DHT needs the extra `mainline`, which is not installed: pip install 'dockage[mainline]'",
        ) from None

    def port() -> int:
        direct = link.address().direct
        return int(direct[0].rpartition(":")[2]) if direct else 0

    host = wanted.bind.rpartition(":")[0]
    return MainlineSquare(wanted.network, wanted.mainline_nodes, me, port, host, wanted.mainline_port)


async def _attached(node: Node, front: DockerFront) -> None:
    """The controller keeps what is in the front's books, so they must be read first."""
    await front.ready.wait()
    attend(node, front.changes)
    node.keeping.attach(front)
    node.deputising.lacks = front.lacks


def _front(home: Path, config: Config, node: Node, journal: Journal, stack: AsyncExitStack) -> DockerFront:
    tenant, rents, clock = config.tenant, node.renting, node.clock
    seeds = Seeds(node.tenant, node.keys, clock)
    engine = Path(tenant.engine) if tenant.engine and Path(tenant.engine).exists() else None
    left = node.deputising.left = LeftImages(home / "left-images", clock)
    store: OwnImages | None = None
    own: EngineImages | OwnImages
    if engine is not None:
        own = _engine_images(engine, home, stack)
    else:
        own = store = OwnImages(home / "own-images", clock)
    sender = ImageSender(WithLeft(left, own))
    node.deputies.leaving.sender = ImageSender(own, "the deputy")

    async def send_image(reference: str, lease: LeaseId, progress: Progress) -> str:
        def report(done: int, total: int) -> None:
            if total:  # nothing where it is there already
                progress(f"sending {reference}: {-(-done >> 20)} of {-(-total >> 20)} MiB")

        def sources(image: str) -> Sequence[Source]:
            return seeds.sources(lease, image)

        image = await sender.send(lambda: rents.layers(lease), reference, report, sources)
        seeds.holds(lease, image)
        return image

    return DockerFront(
        home / tenant.socket,
        rents,
        engine,
        send_image,
        journal,
        clock=clock,
        bind_host=tenant.bind_host,
        store=store,
        puller=Pulling(store, home / "pulled", platform.machine()) if store else None,
        tell=node.steps.tell,
        linger_sec=tenant.linger_sec,
    )


def verify_proof(data: bytes) -> Proven:
    """Raises UsageError("proof.*"); no daemon and no home is needed for it."""
    return proofs.check(proofs.decode(data), verify)


def _engine_images(engine: Path, home: Path, stack: AsyncExitStack) -> EngineImages:
    found = EngineImages(engine, home / "images")
    stack.push_async_callback(found.close)
    return found


def identity(home: Path) -> NodeKey:
    """The node's key, made now if the home has none yet; no daemon is needed for it."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return FileKeys(home / "identity.key").node
