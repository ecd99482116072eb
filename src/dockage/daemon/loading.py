"""Makes a node's configuration from ``config.toml`` in its home, overridden by flags.

Counterparts: ``config.py``, what there is to say; ``saving.py``, which writes it down. The rule: what cannot be meant
is refused before anything starts, with the field's name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from dockage import __version__
from dockage.domain.deployment import normal_host
from dockage.domain.errors import UsageError
from dockage.domain.pricing import PRESETS

from .config import (
    CHAIN_NAMES,
    OWN,
    WALLETS,
    Bitcoin,
    Config,
    Gateway,
    only_own,
    rate_bounds,
    read_key,
    read_ports,
    read_rate,
    read_seed,
    tariff,
)
from .hours import read_hours

FILE = "config.toml"
POLICIES = ("fixed", "utilisation", "pegged")


def read(home: Path) -> dict[str, Any]:
    """What is written in the home. Raises UsageError("config.unreadable")."""
    path = home / FILE
    try:
        return tomllib.loads(path.read_text()) if path.exists() else {}
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise UsageError("config.unreadable", f"{path}: {error}") from None


def load(home: Path, overrides: dict[str, dict[str, Any]] | None = None) -> Config:
    """File, then flags. Raises UsageError("config.*") naming the field."""
    path = home / FILE
    data = read(home)
    for section, values in (overrides or {}).items():
        written = data.get(section, {})
        data[section] = {**written, **values} if isinstance(written, dict) else written
    _refuse_unknown(data, path)
    try:
        config = msgspec.convert(data, Config, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError("config.invalid", f"{path}: {error}") from None
    config = msgspec.structs.replace(config, bitcoin=_by_chain_name(config.bitcoin))
    _check(config, path)
    return config


def _refuse_unknown(data: dict[str, Any], path: Path) -> None:
    """A setting that we do not know is named, and with it the one that was probably meant."""
    sections = {each.name: each.type for each in msgspec.structs.fields(Config)}
    known = [
        f"{name}.{field.name}" for name, kind in sections.items() for field in msgspec.structs.fields(kind)
    ]
    for section, values in data.items():
        for field in values if isinstance(values, dict) and section in sections else ("",):
            name = f"{section}.{field}".rstrip(".")
            if name not in known and name not in sections:
                meant = _meant(name, [*known, *sections])
                raise UsageError(
                    "config.invalid", f"{path}: dockage {__version__} knows no setting {name}{meant}"
                )


def _meant(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # a node whose settings are right does without

    last = name.rpartition(".")[2]
    elsewhere = [each for each in known if each.rpartition(".")[2] == last]
    near = elsewhere or get_close_matches(name, known, 1)
    return f" (is {' or '.join(near)} meant?)" if near else ""


def _by_chain_name(bitcoin: Bitcoin) -> Bitcoin:
    """As bitcoind and our protocol call it."""
    network = CHAIN_NAMES.get(bitcoin.network, bitcoin.network)
    return msgspec.structs.replace(bitcoin, network=network)


def _check(config: Config, path: Path) -> None:
    bitcoin = config.bitcoin
    if bitcoin.network and bitcoin.network not in CHAIN_NAMES.values():
        raise UsageError(
            "config.invalid",
            f"{path}: there is no bitcoin network {bitcoin.network!r}: bitcoin.network is one of "
            f"{', '.join(CHAIN_NAMES)}",
        )
    if bitcoin.wallet not in WALLETS:
        raise UsageError("config.invalid", f"{path}: bitcoin.wallet is one of {', '.join(WALLETS)}")
    if bitcoin.network == "main" and not bitcoin.i_understand_mainnet_is_experimental:
        raise UsageError(
            "config.mainnet",
            "mainnet is experimental: nobody from outside has reviewed dockage's channels yet. To use it all "
            "the same, say --i-understand-mainnet-is-experimental, or set "
            "bitcoin.i_understand_mainnet_is_experimental = true",
        )
    if config.provider.tariff is None and config.provider.price_preset not in PRESETS:
        raise UsageError("config.invalid", f"{path}: provider.price_preset is one of {', '.join(PRESETS)}")
    if config.provider.tariff is not None and not config.provider.tariff.is_sane:
        raise UsageError("config.invalid", f"{path}: a price in provider.tariff is negative or absurd")
    sells = config.provider
    if sells.enabled and not (tariff(config).is_free or only_own(sells)) and not bitcoin.network:
        raise UsageError(
            "provider.no-wallet",
            "a price needs a wallet to be paid into: set [bitcoin] in config.toml, sell for nothing (--free), or "
            "to your own machines only (--only-for own)",
        )
    if config.node.metrics and not _is_loopback(config.node.metrics):
        raise UsageError(
            "config.invalid",
            f"{path}: node.metrics is ip:port on loopback, such as 127.0.0.1:9464, not {config.node.metrics!r}; "
            "to show it to others put a proxy with a password before it",
        )
    _check_prices(config, path)
    if sells.hours:
        read_hours(sells.hours, sells.time_zone)
    _check_gateway(config.gateway)
    for text in (*config.node.seeds, *config.node.indexes):
        read_seed(text)
    named = [text for text in config.provider.only_for if text != OWN]
    for text in (*named, *config.provider.free_for, *config.provider.blocked):
        read_key(text)
    if not _is_socket_address(config.node.bind):
        raise UsageError("config.invalid", f"{path}: node.bind is ip:port, not {config.node.bind!r}")
    for text in config.node.mainline_nodes:
        host, _, port = text.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 65536 and text.isascii() and "," not in text):
            raise UsageError("config.invalid", f"{path}: node.mainline_nodes are host:port, not {text!r}")
    for text in config.node.lan_interfaces:
        if not _is_address(text):
            raise UsageError("config.invalid", f"{path}: node.lan_interfaces are IP addresses, not {text!r}")
    _check_relays(config, path)


def _check_relays(config: Config, path: Path) -> None:
    for url in config.node.relays:
        if not url.startswith(("http://", "https://")) or len(url) > 255 or not url.isprintable():
            raise UsageError(
                "config.relay", f"{path}: {url!r} in node.relays is not a relay's URL: http://IP:PORT is"
            )
    listen = config.relay.listen
    if listen and (not _is_socket_address(listen) or listen.endswith(":0")):
        raise UsageError("config.relay", f"{path}: relay.listen is ip:port, not {listen!r}")
    for text in config.relay.only_for:
        read_key(text)
    if config.relay.msat_gib:
        _check_paid_relay(config, path)


def _check_paid_relay(config: Config, path: Path) -> None:
    wanted = config.relay
    for wrong, why in (
        (not wanted.listen, "a relay with a price needs relay.listen"),
        (not config.provider.enabled, "a relay with a price is sold: set provider.enabled"),
        (config.gateway.enabled, "one node sells one thing: a gateway, or a relay with a price"),
        (bool(wanted.certificate), "a relay with a price is told as ip:port, without a certificate"),
    ):
        if wrong:
            raise UsageError("config.relay", f"{path}: {why}")


def _check_gateway(gateway: Gateway) -> None:
    if not gateway.enabled:
        return
    read_ports(gateway.ports)
    if gateway.zone and normal_host(gateway.zone) != gateway.zone:
        raise UsageError("config.gateway", f"gateway.zone is a domain in lower case, not {gateway.zone!r}")
    if not gateway.public or not all(_is_address(text) for text in gateway.public):
        raise UsageError("config.gateway", "gateway.public names the machine's public IP addresses")
    for at in (gateway.http, gateway.tls if gateway.face else "127.0.0.1:1"):
        if not _is_socket_address(at):
            raise UsageError("config.gateway", f"a gateway listens at ip:port, not {at!r}")
    if gateway.dns and not _is_socket_address(gateway.dns):
        raise UsageError("config.gateway", f"gateway.dns is ip:port, not {gateway.dns!r}")
    if gateway.resolver and not _is_socket_address(gateway.resolver):
        raise UsageError("config.gateway", f"gateway.resolver is ip:port, not {gateway.resolver!r}")
    if bool(gateway.certificate) != bool(gateway.certificate_key):
        raise UsageError("config.gateway", "gateway.certificate and gateway.certificate_key go together")


def _check_prices(config: Config, path: Path) -> None:
    policy, peg = config.provider.price_policy, config.peg
    if policy not in POLICIES:
        raise UsageError("config.invalid", f"{path}: provider.price_policy is one of {', '.join(POLICIES)}")
    if policy != "pegged":
        return
    if bool(peg.rate) == bool(peg.command):
        raise UsageError("config.peg", f"{path}: a peg takes either peg.rate or peg.command")
    low, high = rate_bounds(peg)
    if not low <= read_rate("reference", peg.reference) <= high:
        raise UsageError("config.peg", f"{path}: peg.reference is not between peg.rate_min and peg.rate_max")
    if peg.rate and not low <= read_rate("rate", peg.rate) <= high:
        raise UsageError("config.peg", f"{path}: peg.rate is not between peg.rate_min and peg.rate_max")


def _is_loopback(text: str) -> bool:
    return _is_socket_address(text) and ip_address(text.rpartition(":")[0].strip("[]")).is_loopback


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_socket_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return _is_address(host.removeprefix("[").removesuffix("]")) and port.isdecimal() and int(port) < 65536
