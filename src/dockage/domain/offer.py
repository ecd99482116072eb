"""What a provider sells, and whether it fits what a tenant wants.

An offer is a directory entry: it invites a quote and binds nobody. The quote is signed, binding for
its lifetime, and names one lease.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .channel import SETUP_MAX
from .deployment import normal_host
from .identity import LeaseId, NodeKey
from .pricing import Tariff, ceiling, pricer
from .reputation import is_avoided
from .resources import Resources
from .units import HOUR, Instant, Msat, Sat
from .unseen import is_bait, is_risky, unseen
from .usage import full_use

OPACITIES = ("open", "sealed", "confidential")
"""What the provider can see of the container, least secret first."""
ISOLATIONS = ("container", "gvisor", "vm")
"""What the container can do to the provider, least isolated first."""
ENGINE, GATEWAY, RELAY = "engine", "gateway", "relay"
SERVICES = (ENGINE, GATEWAY, RELAY)
"""What a lease can be of; each offer sells one of them."""


class Ingress(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a gateway sells: names and ports for the public."""

    zone: str
    """Names in it reach the gateway; "" = own domains only."""
    addresses: tuple[str, ...]
    """Public IPv4 and IPv6 addresses, for DNS."""
    first_port: int = 0
    last_port: int = 0
    """Ports for TCP and UDP, both included; 0 = none."""

    @property
    def is_sane(self) -> bool:
        return (
            (not self.zone or normal_host(self.zone) == self.zone)
            and 0 < len(self.addresses) <= 4
            and all(0 < len(address) <= 45 and address.isprintable() for address in self.addresses)
            and 0 <= self.first_port <= self.last_port < 65536
        )


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    provider: NodeKey
    free: Resources
    """What is left to rent now."""
    tariff: Tariff
    region: str
    architecture: str
    """As the kernel names it: x86_64, aarch64."""
    network: str
    """The bitcoin network that payment settles on; "" if the offer is free."""
    opacity: str = "open"
    isolation: str = "container"
    confirmations: int = 1
    """How deep the channel's funding must be before the lease opens (beyond ``credit_sat``)."""
    credit_sat: Sat = Sat(0)
    """How much is served on unconfirmed funding."""
    setup_sat: Sat = Sat(0)
    """What the funding of a new channel must also pay to the provider, at most."""
    only_for: tuple[NodeKey, ...] = ()
    """If not empty, nobody else is served: a private market."""
    free_for: tuple[NodeKey, ...] = ()
    """Who pays nothing; everybody else pays ``tariff``."""
    min_msat_hour: Msat = Msat(0)
    """No lease is sold here whose worst case is less."""
    until: Instant = Instant(0)
    """No lease here outlives this; 0: open."""
    ingress: Ingress | None = None
    """Set by gateways: their leases hold no containers."""
    relay_port: int = 0
    """Set by relays that are paid: the TCP port, at the address that its node has. No containers there, either."""

    @property
    def service(self) -> str:
        """One of ``SERVICES``."""
        return GATEWAY if self.ingress is not None else RELAY if self.relay_port else ENGINE

    @property
    def is_sane(self) -> bool:
        """False for a peer's nonsense; a record that holds it is not stored."""
        return (
            self.free.is_sane
            and self.tariff.is_sane
            and len(self.provider) == 32
            and 0 < len(self.region) <= 32
            and len(self.architecture) <= 16
            and len(self.network) <= 16
            and (self.region + self.architecture + self.network).isprintable()
            and self.opacity in OPACITIES
            and self.isolation in ISOLATIONS
            and 0 <= self.confirmations <= 100
            and 0 <= self.setup_sat <= SETUP_MAX
            and len(self.only_for) <= 16
            and len(self.free_for) <= 16
            and 0 <= self.min_msat_hour < 1 << 62
            and 0 <= self.until < 1 << 63
            and (self.ingress is None or (self.ingress.is_sane and not self.relay_port))
            and 0 <= self.relay_port < 65536
        )

    def as_seen_by(self, tenant: NodeKey) -> Offer:
        """With the tariff that *tenant* would be quoted."""
        if tenant not in self.free_for:
            return self
        return msgspec.structs.replace(self, tariff=Tariff(), network="", min_msat_hour=Msat(0))


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant wants of the market for one lease."""

    tenant: NodeKey
    limits: Resources
    region: str = ""
    """"" = anywhere."""
    architecture: str = "x86_64"
    opacity: str = "open"
    isolation: str = "container"
    max_msat_hour: Msat | None = None
    """Worst-case price (all of the limits used, network aside) that is still acceptable."""
    network: str = ""
    """The network our wallet is on; "" = no wallet, only free offers fit."""
    service: str = ENGINE
    """One of ``SERVICES``."""

    @property
    def is_sane(self) -> bool:
        """False for a peer's nonsense."""
        return (
            len(self.tenant) == 32
            and self.limits.is_sane
            and max(len(self.region), len(self.architecture), len(self.network)) <= 32
            and self.opacity in OPACITIES
            and self.isolation in ISOLATIONS
            and self.service in SERVICES
            and (self.max_msat_hour is None or 0 <= self.max_msat_hour < 1 << 62)
        )


def hourly_ceiling(offer: Offer, limits: Resources) -> Msat:
    """The worst case of one hour on *offer*: every limit used to the full, network aside."""
    return ceiling(limits, offer.tariff, HOUR)


def hourly_ceilings(limits: Resources) -> Callable[[Tariff], Msat]:
    """The same for many tariffs."""
    return pricer(full_use(limits, HOUR))


Risk = Callable[[NodeKey], int]
"""Permille on top of a provider's price, by what we have seen of it (domain/reputation.py)."""


def nobody(_: NodeKey) -> int:
    """The risk where nothing is known of anybody."""
    return 0


def misfits(offer: Offer, wish: Wish, msat_hour: Msat) -> list[str]:
    """The names of what stands between *offer*, which would cost *msat_hour*, and *wish*; empty if it fits. Named as
    the fields of ``Wish`` and ``Resources``."""
    found = [] if wish.limits.fits_in(offer.free) else list(wish.limits.lacking(offer.free))
    if wish.region and offer.region != wish.region:
        found.append("region")
    if offer.service != wish.service:
        found.append("service")
    if offer.architecture != wish.architecture and wish.service == ENGINE:
        found.append("architecture")
    if offer.opacity != wish.opacity and is_less(offer.opacity, wish.opacity, OPACITIES):
        found.append("opacity")
    if offer.isolation != wish.isolation and is_less(offer.isolation, wish.isolation, ISOLATIONS):
        found.append("isolation")
    if offer.only_for and wish.tenant not in offer.only_for:
        found.append("tenant")
    if offer.network != wish.network and not offer.tariff.is_free:
        found.append("network")
    if is_risky(unseen(offer.tariff, runs=offer.service == ENGINE), msat_hour):
        found.append("traffic")
    if is_bait(offer.setup_sat, msat_hour) and not offer.tariff.is_free:
        found.append("setup")
    if msat_hour < offer.min_msat_hour:
        found.append("min_msat_hour")
    if wish.max_msat_hour is not None and msat_hour > wish.max_msat_hour:
        found.append("max_msat_hour")
    return found


def is_less(one: str, other: str, levels: tuple[str, ...]) -> bool:
    return levels.index(one) < levels.index(other)


def obstacles(offer: Offer, wish: Wish, risk: Risk = nobody) -> tuple[str, ...]:
    """Why *offer* does not fit, one plain clause each; empty if it fits. Read by placement and ``why``."""
    price = hourly_ceiling(offer, wish.limits)
    found = [_clause(name, offer, wish, price) for name in misfits(offer, wish, price)]
    if is_avoided(risk(offer.provider)):
        found.append("was found cheating by this node")
    return tuple(found)


def _clause(name: str, offer: Offer, wish: Wish, price: Msat) -> str:
    match name:
        case "tenant":
            return "not open to your key"
        case "service":
            return f"is {_A[offer.service]}, not {_A[wish.service]}"
        case "network":
            return f"is paid on {offer.network}, your wallet is on {wish.network or 'no network'}"
        case "traffic":
            lie = unseen(offer.tariff, runs=offer.service == ENGINE)
            return f"could bill {_sat(lie)} of traffic that nobody can count, as soon as it is rented"
        case "setup":
            return f"wants {offer.setup_sat} sat for itself before it serves anything"
        case "min_msat_hour":
            return f"sells nothing that costs less than {_sat(offer.min_msat_hour)} an hour at most"
        case "max_msat_hour":
            return f"costs up to {_sat(price)} an hour"
        case "region" | "architecture":
            return f"{name} is {getattr(offer, name)}"
        case "opacity" | "isolation":
            return f"{name} is only {getattr(offer, name)}"
        case _:
            return f"only {_room(offer.free, name)} left"


_A = {ENGINE: "an engine", GATEWAY: "a gateway", RELAY: "a relay"}


def _sat(price: Msat) -> str:
    """To be read only; at most six digits."""
    return f"{price / 1000:g} sat"


def _room(free: Resources, name: str) -> str:
    amount = getattr(free, name)
    if name == "cpu_milli":
        return "1 core" if amount == 1000 else f"{amount / 1000:g} cores"
    return f"{amount >> 20} MiB of {name.removesuffix('_bytes')}"


def rank(offers: tuple[Offer, ...], wish: Wish, risk: Risk = nobody) -> tuple[Offer, ...]:
    """The offers that fit, by price times (1 + risk); equal ones by risk and key, so that every run agrees."""
    fitting = [offer for offer in offers if not obstacles(offer, wish, risk)]

    def cost(offer: Offer) -> tuple[int, int, NodeKey]:
        more = risk(offer.provider)
        return hourly_ceiling(offer, wish.limits) * (1000 + more), more, offer.provider

    return tuple(sorted(fitting, key=cost))


class Quote(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="quote"):
    """A provider's signed, binding word for one lease until ``expires``."""

    lease: LeaseId
    tenant: NodeKey
    limits: Resources
    tariff: Tariff
    network: str
    confirmations: int
    credit_sat: Sat
    expires: Instant
