"""One frozen record says how a node runs, and what is written in it is read here.

Each field's docstring is its manual entry (docs/reference/config.md is made from them). Counterpart: ``loading.py``,
which makes one from a home's ``config.toml`` and flags.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dockage.domain.channel import SETUP_MAX
from dockage.domain.errors import UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.pricing import PRESETS, Tariff
from dockage.domain.units import micro
from dockage.ports.peers import Address

CHAIN_NAMES = {
    "bitcoin": "main",
    "testnet4": "testnet4",
    "testnet": "test",
    "signet": "signet",
    "regtest": "regtest",
}
"""What our user calls a network: what bitcoind calls it."""
WALLETS = ("bitcoind", "light")
OWN = "own"
"""In a list of keys: our user's linked machines."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=31_536_000)]
Percent = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bind: str = "0.0.0.0:0"
    """``ip:port`` of the peer link (UDP). Port 0 takes any free one, and the same one again after a restart."""
    seeds: tuple[str, ...] = ()
    """Market nodes to begin with, each ``KEY@ip:port``. No seed is built in: nobody is called unasked."""
    market: bool = False
    """Store and answer for the market. Only for nodes that everybody can reach."""
    public: bool = False
    """Take part in the public market: node ids are bound to public addresses, which makes it expensive to
    surround a topic. False for a market on one machine or in one LAN."""
    index: bool = False
    """Keep every offer of ``regions`` and answer which of them fit. Only for nodes that everybody can reach."""
    indexes: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Indexes to ask first, each ``KEY@ip:port``; others are found on the market by themselves."""
    regions: tuple[Name, ...] = ("earth",)
    """The regions whose offers are looked at."""
    stamp_bits: Annotated[int, msgspec.Meta(ge=0, le=28)] = 16
    """Proof of work on our own records; 20 takes about a second."""
    nat: bool = True
    """Be reachable from behind a NAT: ask market nodes where they see us, use a relay, and ask the home router to
    forward our port (UPnP, PCP, NAT-PMP). Nothing of it where ``bind`` is on loopback."""
    relays: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)] = ()
    """URLs of relays to be reachable through, such as ``http://203.0.113.7:3340``; the nearest that answers is used.
    Empty: those that the market nodes we ask run themselves."""
    relay_budget_sat: Count = 0
    """Where no free relay answers, rent one on the market for at most so many satoshis a day (UTC), besides what the
    chain takes for the channel. 0: never."""
    network: Name = "main"
    """Which market: nodes that say another name on the local network or in Mainline are not listened to."""
    name: Annotated[str, msgspec.Meta(max_length=32)] = ""
    """What your other machines call this one, once they are linked; empty = the host's name."""
    lan: bool = False
    """Find market nodes and your own machines on the local network, and be found (mDNS, extra ``lan``). Whoever is on
    it then sees this node's key, addresses and whether it is a market node."""
    lan_interfaces: tuple[str, ...] = ()
    """IP addresses of the interfaces that mDNS uses; empty = the one that multicast leaves by."""
    mainline: bool = False
    """Look for market nodes in the BitTorrent Mainline DHT while nobody else is known; a market node announces itself
    there (extra ``mainline``). The DHT's nodes then see this address and the hash of the market's name."""
    mainline_nodes: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """Where that DHT is entered, each ``host:port``; empty = dht.libtorrent.org:25401 and
    router.bittorrent.com:6881."""
    mainline_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """UDP port at which a market node tells its key to those who found its address there; 0 takes any free one."""
    metrics: str = ""
    """``ip:port`` on loopback where Prometheus finds ``/metrics`` (docs/reference/metrics.md); empty: nowhere."""


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = False
    """Sell this machine."""
    engine: str = "/var/run/docker.sock"
    """The Docker Engine that runs the containers of strangers."""
    price_preset: str = "fair"
    """``fair``, ``cheap`` or ``free``; ``tariff`` overrides it."""
    tariff: Tariff | None = None
    """Own prices, as a table ``[provider.tariff]`` of whole msat: ``cpu_hour``, ``memory_gib_hour``,
    ``disk_gib_hour``, ``net_in_gib``, ``net_out_gib``, ``internet_out_gib``, ``replica_out_gib``,
    ``cpu_reserved_hour``, ``memory_reserved_gib_hour``; what is left out costs nothing."""
    price_policy: str = "fixed"
    """How prices move: ``fixed``; ``utilisation`` (cheaper while the machine is idle); or ``pegged`` to the display
    unit of ``[peg]``. A running lease keeps the prices it began with, whatever the policy does."""
    price_empty_percent: Percent = 60
    """By utilisation: of the prices, while nothing is sold."""
    price_full_percent: Percent = 200
    """By utilisation: of the prices, when all is sold. In between a straight line, by the scarcest resource."""
    free_for: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """Keys (hex) that pay nothing, 16 at most: your own other machines, friends. The offer shows them."""
    region: Name = "earth"
    """Where the offer is listed, up to 32 characters."""
    share_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """How much of the machine is for sale, of its cores, its memory and its free disk alike; 0 = all cores, three
    quarters of the memory, half of the free disk. The three below overrule it."""
    cpu_milli: Count = 0
    """Thousandths of a core for sale."""
    memory_mib: Count = 0
    """Memory for sale."""
    disk_mib: Count = 0
    """Disk for sale."""
    hours: str = ""
    """When leases run here, such as ``22:00-07:00``; empty = always. A lease ends with the hours, and its tenant is
    told so when it begins."""
    time_zone: str = ""
    """Of ``hours``, such as ``Europe/Berlin``; empty = the machine's."""
    min_sat_hour: Count = 0
    """No lease is sold whose worst case (every limit used to the full) is less than this an hour: a very small one is
    eaten up by the chain's fees. Who pays nothing is served all the same."""
    only_for: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """Keys (hex) that may rent, 16 at most; empty: everybody. ``own``: your linked machines (``dockage link``); with
    nothing else in the list no wallet is needed, and the offer is shown to nobody but them. A linked machine may
    always rent, and never pays."""
    blocked: tuple[str, ...] = ()
    """Keys (hex) that may not."""
    credit_sat: Count = 0
    """Served to a stranger on a channel whose funding is not confirmed yet: what a double spend can cost."""
    credit_max_sat: Count = 1_000
    """The same for a tenant with a history: up to this, a tenth of what it has paid on channels that are closed."""
    credit_total_sat: Count = 10_000
    """The same over all tenants at once: keys cost nothing, so a crowd of strangers may be one."""
    setup_sat: Annotated[int, msgspec.Meta(ge=0, le=SETUP_MAX)] = 0
    """What a tenant's funding also pays us, in advance for the close. A light wallet sees a channel only by it: 0 means
    330 there, and nothing with a bitcoind."""
    patience_sec: Seconds = 5
    """How long a tick may stay unpaid before the containers are frozen."""
    grace_sec: Seconds = 60
    """How long frozen containers are held before the lease ends."""
    resolvers: tuple[str, ...] = ()
    """Name servers in private networks that leases may ask; empty = those of this machine."""
    firewall: bool = True
    """Keep containers off this machine and its network. False only where something else does."""


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = False
    """Sell names and ports of this machine, instead of containers: it needs a public address. Prices and whom it serves
    are those of ``[provider]``."""
    zone: str = ""
    """A domain of yours whose names (``*.zone``) point to this machine; empty: own domains of tenants only (see
    ``resolver``)."""
    public: Annotated[tuple[str, ...], msgspec.Meta(max_length=4)] = ()
    """The machine's public addresses, 4 at most: the offer shows them, for tenants' DNS."""
    ports: str = ""
    """TCP and UDP ports for rent, as ``20000-20100``; empty: none."""
    bind: str = "0.0.0.0"
    """The address that rented ports listen at."""
    face: bool = True
    """Run Caddy (extra ``gateway``) for TLS, HTTP/2 and certificates. False: plain HTTP only, at ``http``."""
    http: str = "0.0.0.0:80"
    """Where plain HTTP is taken: with the face it is sent on to HTTPS."""
    tls: str = "0.0.0.0:443"
    """Where TLS is taken: passed on by name to sealed deployments, ended by the face for the others."""
    acme: str = ""
    """The directory that certificates come from; empty: Let's Encrypt; ``internal``: an authority of this machine's
    own, for tests and private networks."""
    acme_root: str = ""
    """PEM file: whom to believe that a private directory is itself."""
    acme_email: str = ""
    """Where the authority writes to about certificates."""
    certificate: str = ""
    """PEM file of a certificate of your own, such as the zone's wildcard: names under a zone share Let's Encrypt's
    limit of 50 a week. With ``dns`` and the face the gateway gets the wildcard by itself."""
    certificate_key: str = ""
    """PEM file of its key."""
    resolver: str = ""
    """``ip:port`` of a recursive name server, such as ``127.0.0.1:53``. Tenants' own domains are served once it says
    that they are theirs (spec 08). Empty: names of the zone only."""
    dns: str = ""
    """``ip:port``, such as ``0.0.0.0:53``: answer for the zone and the names in it, over UDP and TCP (spec 09). The
    zone's parent then points its NS to this machine. Empty: no name server."""


class Peg(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    unit: Name = "EUR"
    """The display unit, for people."""
    reference: str = ""
    """What a bitcoin costs, in the unit, when the prices in ``[provider]`` hold: ``"60000"``. At another rate they are
    scaled, so that they are worth the same in the unit."""
    rate: str = ""
    """What a bitcoin costs now. Or take ``command``."""
    command: tuple[str, ...] = ()
    """Prints what a bitcoin costs now, such as ``61234.5``: the program and its arguments, no shell. It runs as the
    daemon's user."""
    timeout_sec: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10
    """For one run of the command."""
    every_sec: Seconds = 600
    """Between two runs."""
    max_age_sec: Seconds = 86_400
    """The last good rate counts so long; after that nothing new is sold until there is one."""
    rate_min: str = ""
    """Below this a rate is not believed; empty = a third of ``reference``."""
    rate_max: str = ""
    """Above this a rate is not believed; empty = three times ``reference``."""


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = True
    """Listen as a Docker engine that rents in the market."""
    socket: str = "docker.sock"
    """Where; relative to the home."""
    engine: str = "/var/run/docker.sock"
    """The local engine that holds, builds and pulls images; empty if there is none."""
    bind_host: str = "127.0.0.1"
    """Where published ports without an address listen."""
    checks: bool = True
    """Look into our leases at random moments: compare the containers' own counters with the bill, and work for half a
    second on every core to see that a core is a core. You pay for that CPU: about 0.1 % of the lease's, at the usual
    ten minutes."""
    check_minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)] = 10
    """Mean time between two looks; the first three come in the first half minute."""
    linger_sec: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 5.0
    """How long a lease is kept after its last container is removed."""
    gateway_patience_sec: Seconds = 30
    """A gateway that says nothing for so long is given up for another one, if others are heard. One that is merely
    restarted is back in seconds."""
    deputy_sat: Annotated[int, msgspec.Meta(ge=0, le=21_000_000 * 100_000_000)] = 0
    """What a deployment of a linked machine may cost this one in all, at most, while it is that machine's deputy. 0:
    only what is free."""


class Bitcoin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: str = ""
    """``bitcoin`` (the main network), ``testnet4``, ``testnet``, ``signet`` or ``regtest``; empty: no wallet, free
    offers only."""
    wallet: str = "bitcoind"
    """``bitcoind``: coins and chain of a bitcoind, over its RPC. ``light``: a wallet of our own from twelve words, no
    node needed (make it with ``dockage wallet new``)."""
    peers: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)] = ()
    """Light wallet: bitcoin nodes to ask, each ``ip:port``, that serve compact filters (``-blockfilterindex=1
    -peerblockfilters=1``). Two at least, of different owners, unless one is your own."""
    discover: bool = False
    """Light wallet: find further nodes by bitcoin's own DNS seeds. Off: nobody is called unasked."""
    url: str = "http://127.0.0.1:8332"
    """The RPC of a bitcoind."""
    user: str = ""
    """Of the RPC, with ``password``; or take ``cookie``."""
    password: str = ""
    """Of the RPC. Anybody who can read config.toml can read it: the cookie is better."""
    cookie: str = ""
    """Path of bitcoind's ``.cookie``, instead of user and password."""
    bitcoind_wallet: str = "dockage"
    """Name of the wallet in bitcoind; made if it is missing."""
    poll_sec: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 10.0
    """Between two looks at the chain."""
    feerate_max: Annotated[int, msgspec.Meta(ge=1000, le=10_000_000)] = 100_000
    """The most that we pay, in sat per 1000 vB."""
    i_understand_mainnet_is_experimental: bool = False
    """Without it, ``network = "bitcoin"`` is refused: nobody from outside has reviewed this code yet."""


class ChannelLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hours: Annotated[int, msgspec.Meta(ge=1, le=8760)] = 24
    """A new channel holds the worst case of so many hours."""
    overhead_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    """The most that the chain's fees may be of a channel."""
    expiry_blocks: Annotated[int, msgspec.Meta(ge=432, le=25_000)] = 2016
    """How long our coins are locked if a provider vanishes: two weeks. Providers refuse less than 432."""
    refill: bool = True
    """Open a successor, as large as the channel before it, when that one runs dry or nears its expiry while leases
    run on it. False ends the leases then."""
    largest_sat: Count = 10_000_000
    """No channel is made larger than this, however long ``hours`` are."""


class Relay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = ""
    """``ip:port`` (TCP) of a relay for nodes that cannot reach each other; empty: none. Only for nodes that everybody
    can reach. It passes on what it cannot read, and sees who talks to whom, and how much."""
    clients: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    """At once."""
    client_bytes_sec: Annotated[int, msgspec.Meta(ge=10_000, le=1 << 40)] = 4_000_000
    """What one client may send, on average."""
    total_bytes_sec: Annotated[int, msgspec.Meta(ge=10_000, le=1 << 40)] = 16_000_000
    """What all clients together may send, on average."""
    only_for: Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)] = ()
    """Keys (hex) that may use it; empty: everybody."""
    msat_gib: Count = 0
    """The price of a GiB passed on for whoever is reached by it, in either direction. 0: it is free and needs no lease.
    With a price the node sells this and nothing else: ``provider.enabled`` is on, its engine is not used, and whom it
    serves and on which credit is what ``[provider]`` says."""
    certificate: str = ""
    """Path of a certificate (PEM) for its name, with its chain, to be used as ``https://NAME:PORT``. It must be one
    that everybody trusts. Without it the relay speaks plain HTTP; what it carries is encrypted by the nodes anyway."""
    key: str = ""
    """Path of the certificate's key, if it is not in the same file."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node: Node = Node()
    """The peer link and the market."""
    provider: Provider = Provider()
    """What this node sells."""
    gateway: Gateway = Gateway()
    """The way in for the public, if this node sells that."""
    peg: Peg = Peg()
    """The display unit that prices are pegged to, with ``price_policy = "pegged"``."""
    tenant: Tenant = Tenant()
    """How this node rents: the Docker-compatible socket."""
    bitcoin: Bitcoin = Bitcoin()
    """The wallet and the chain, by way of a bitcoind or of a light client."""
    relay: Relay = Relay()
    """A relay that this node runs for others (docs/explanation/connections.md)."""
    channel: ChannelLimits = ChannelLimits()
    """What a payment channel of ours may be."""


def user_name(network: str) -> str:
    """What our user calls the network that bitcoind calls *network*."""
    return next(name for name, chain in CHAIN_NAMES.items() if chain == network)


def read_ports(text: str) -> tuple[int, int]:
    """First and last; (0, 0) for none. Raises UsageError("config.gateway")."""
    if not text:
        return 0, 0
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and dash and last.isdecimal() and 0 < int(first) <= int(last) < 65536):
        raise UsageError("config.gateway", f"gateway.ports is a range as 20000-20100, not {text!r}")
    return int(first), int(last)


def rate_bounds(peg: Peg) -> tuple[int, int]:
    """In millionths of the unit. Raises UsageError("config.peg")."""
    reference = read_rate("reference", peg.reference)
    low = read_rate("rate_min", peg.rate_min) if peg.rate_min else reference // 3
    high = read_rate("rate_max", peg.rate_max) if peg.rate_max else reference * 3
    return max(1, low), high


def read_rate(name: str, text: str) -> int:
    try:
        return micro(text)
    except ValueError:
        raise UsageError(
            "config.peg", f"peg.{name} is what a bitcoin costs, as '60000', not {text!r}"
        ) from None


def tariff(config: Config) -> Tariff:
    provider, passed = config.provider, config.relay.msat_gib
    if passed:
        return Tariff(net_in_gib=passed, net_out_gib=passed)
    return provider.tariff if provider.tariff is not None else PRESETS[provider.price_preset]


def only_own(provider: Provider) -> bool:
    """Whether our user's own machines alone may rent."""
    return bool(provider.only_for) and set(provider.only_for) == {OWN}


def read_key(text: str) -> NodeKey:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise UsageError("config.key", f"{text!r} is not a node's key: 64 hex digits are")
    return NodeKey(key)


def read_seed(text: str) -> tuple[NodeKey, Address]:
    key, at, address = text.partition("@")
    host, colon, port = address.rpartition(":")
    if not (at and colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError("config.seed", f"{text!r} in node.seeds or node.indexes is no node: KEY@ip:port is")
    return read_key(key), Address("", (address,))
