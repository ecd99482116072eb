"""The relay and the search for our address, as the configuration has them."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from dockage.daemon import config, loading, nat
from dockage.daemon.config import Config
from dockage.daemon.peers import Reception
from dockage.domain.errors import UsageError
from dockage.domain.pricing import Tariff
from dockage.protocol import streams
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryNetwork, serving
from dockage.wire.frames import read_frame, write_frame

SOLD = """[bitcoin]
network = "regtest"
[relay]
listen = "0.0.0.0:3340"
msat_gib = 20000
[provider]
enabled = true
"""


def made(**sections: dict[str, object]) -> Config:
    return msgspec.convert(sections, Config)


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        ({}, True),
        ({"bind": "192.0.2.1:4711"}, True),
        ({"bind": "[::]:4711"}, True),
        ({"bind": "127.0.0.1:4711"}, False),
        ({"bind": "[::1]:4711"}, False),
        ({"nat": False}, False),
    ],
)
def test_a_node_of_one_machine_asks_no_router_and_no_relay(node: dict[str, object], wanted: bool) -> None:
    assert nat.wants_relays(made(node=node)) is wanted


@pytest.mark.parametrize(
    "text",
    [
        '[node]\nrelays = ["198.51.100.7:3340"]',
        '[node]\nrelays = ["http://x\\u0007"]',
        '[relay]\nlisten = "relay.example:3340"',
        '[relay]\nlisten = "0.0.0.0:0"',
        '[relay]\nonly_for = ["abc"]',
        "[relay]\nclients = 0",
        SOLD.replace("enabled = true", ""),
        SOLD.replace('listen = "0.0.0.0:3340"', ""),
        SOLD.replace("[relay]", '[gateway]\nenabled = true\npublic = ["192.0.2.1"]\n[relay]'),
        SOLD.replace("[relay]", '[relay]\ncertificate = "/relay.pem"'),
    ],
)
def test_a_relay_that_cannot_be_meant_is_refused_before_anything_is_done(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        loading.load(home)
    assert caught.value.code in ("config.relay", "config.key", "config.invalid")


async def test_a_relay_that_is_paid_is_told_to_nobody_as_a_free_one(home: Path) -> None:
    (home / "config.toml").write_text(SOLD)
    sold = loading.load(home)
    assert nat.paid_port(sold) == 3340
    assert config.tariff(sold) == Tariff(net_in_gib=20_000, net_out_gib=20_000)
    for asked, port in ((sold, 0), (made(relay={"listen": "0.0.0.0:3340"}), 3340)):
        assert await told_port(asked) == port


async def told_port(asked: Config) -> int:
    network, keys = MemoryNetwork(), [MemoryKeys(number) for number in (1, 2)]
    here, there = (network.link(x.node, f"127.0.0.1:{n}") for n, x in enumerate(keys, 2001))
    reception = Reception(keys[1], asyncio.get_running_loop().time)
    nat.answer_observers(asked, there, reception)  # type: ignore[arg-type]
    here.learn(there.node, there.address())
    async with serving(there, reception.accept):
        stream = await here.open(there.node)
        await write_frame(stream, streams.encode_header(streams.Observe()))
        return streams.decode_observed(await read_frame(stream, streams.OBSERVED_MAX)).relay_port


async def test_a_port_that_is_taken_and_a_certificate_that_is_none_are_told() -> None:
    async with AsyncExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError) as caught:
            nat.open_relay(made(relay={"listen": at}), stack)
        assert caught.value.code == "relay.busy"
        taken.close()
        with pytest.raises(UsageError) as caught:
            nat.open_relay(made(relay={"listen": at, "certificate": "/nowhere.pem"}), stack)
        assert caught.value.code == "relay.certificate"


async def test_no_relay_is_run_unless_our_user_says_so() -> None:
    async with AsyncExitStack() as stack:
        assert nat.open_relay(made(), stack) is None


async def test_with_a_certificate_a_relay_speaks_tls(tmp_path: Path) -> None:
    certificate = a_certificate(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with AsyncExitStack() as stack:
        relay = nat.open_relay(
            made(relay={"listen": f"127.0.0.1:{port}", "certificate": str(certificate)}), stack
        )
        assert relay is not None
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(relay[1]())  # type: ignore[arg-type]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"https://localhost:{port}/ping", ssl=trusting) as answer:
                    assert answer.status == 200
            serving.cancel()


def a_certificate(folder: Path) -> Path:
    key, now = Ed25519PrivateKey.generate(), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, None)
    )
    path = folder / "relay.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + made.public_bytes(Encoding.PEM))
    return path
