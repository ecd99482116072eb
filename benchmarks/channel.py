"""What payments cost, beside the bare signatures of libsecp256k1 in the same run.

    script/bench channel [--json FILE] [--leases N] [--seconds N] [--only PART] [--profile FILE]

raw_sign_per_s, raw_verify_per_s   BIP340 by the library alone, through the binding that we ship
pay_per_s                          a tenant's payments on one channel: template, digest, signature, new state
accept_per_s                       a provider's checks of them: amount, template, digest, signature, new state
durable_per_s                      payments taken by a provider's mind and on its disk (fsync, many to one commit)
leases, leases_core, leases_rss_mb a provider's process with so many leases, each read, stated, paid and journalled
                                   once a second; its share of a core (the peer link's threads included) and memory.
                                   Tenants are whole nodes in another process, bitcoind is real, containers are not:
                                   each reading reads the files of a real cgroup and adds made-up usage.
statements_per_s, payments_per_s, paid_sat_per_s   of that provider: one payment may be for many leases of a tenant
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "script"), str(ROOT / "benchmarks")]

from btclib_secp256k1 import keys as points  # noqa: E402
from btclib_secp256k1 import ssa, xonly  # noqa: E402
from channel_nodes import play_provider, play_tenants  # noqa: E402

from devtools.regtest import Regtest  # noqa: E402
from dockage.adapters.secp.btclib import Secp  # noqa: E402
from dockage.adapters.secp.keys import ChannelKeys  # noqa: E402
from dockage.adapters.sqlite.journal import SqliteJournal  # noqa: E402
from dockage.adapters.system.clock import SystemClock  # noqa: E402
from dockage.daemon.driver import Driver  # noqa: E402
from dockage.daemon.rows import changed  # noqa: E402
from dockage.domain import channel as channels  # noqa: E402
from dockage.domain.channel import Channel, ChannelState, Terms  # noqa: E402
from dockage.domain.identity import ChannelId, NodeKey  # noqa: E402
from dockage.domain.pricing import Tariff  # noqa: E402
from dockage.domain.resources import Resources  # noqa: E402
from dockage.domain.units import Sat  # noqa: E402
from dockage.node import provider as selling  # noqa: E402
from dockage.node.events import Received  # noqa: E402
from dockage.node.policy import ProviderPolicy  # noqa: E402
from dockage.protocol.bitcoin.channel import Commitment  # noqa: E402
from dockage.protocol.messages import Payment  # noqa: E402

SECONDS = 1.0
"""Each loop of signatures is measured three times so long; the best counts, on both sides alike."""
BURST = 2_000
SETTLE_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--leases", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--only", choices=["signatures", "durable", "leases"])
    parser.add_argument("--profile", metavar="FILE", help="cProfile of the provider, besides the measurement")
    parser.add_argument("--engines", nargs=2, metavar=("TENANT", "PROVIDER"), help="sockets")
    parser.add_argument("--play", choices=["provider", "tenants"], help=argparse.SUPPRESS)
    parser.add_argument("--told", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        play = play_provider if options.play == "provider" else play_tenants
        return play(json.loads(options.told))
    figures: dict[str, Any] = {}
    if options.only in (None, "signatures"):
        figures |= signatures()
    if options.only in (None, "durable"):
        figures["durable_per_s"] = asyncio.run(durable())
    if options.only in (None, "leases") and options.engines and options.leases:
        figures |= leases(options)
    figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    for name, value in figures.items():
        print(f"{name:<18} {value}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


# -- one channel --------------------------------------------------------------------------------------
def a_channel(curve: Secp) -> tuple[Channel, Commitment, Callable[[bytes], bytes]]:
    mine, theirs = ChannelKeys(bytes([1]) * 32, curve), ChannelKeys(bytes([2]) * 32, curve)
    id_ = ChannelId(bytes(16))
    script = b"\x51\x20" + bytes(range(32))
    terms = Terms(
        mine.public("tenant", id_), theirs.public("provider", id_), 10_000, Sat(2_000_000_000), script
    )
    channel = Channel(
        id_, NodeKey(bytes(32)), terms, ChannelState.OPEN, txid="ab" * 32, opened_height=1, seen=True
    )
    return channel, Commitment(terms, (channel.txid, 0), curve), mine.signer("tenant", id_)


def signatures() -> dict[str, int]:
    curve = Secp()
    channel, commitment, sign = a_channel(curve)
    secret = secrets.token_bytes(32)
    signer, digest = ssa.Signer(secret), secrets.token_bytes(32)
    point = bytes(xonly.to_pubkey(points.pubkey_from_prvkey(secret)[1:], compressed=False))
    signature = signer.sign(digest, verify=False)

    def pay() -> None:
        nonlocal paying
        total = Sat(paying.paid + 1)
        paying = channels.pay(paying, total, commitment.pay(total, sign))

    def accept() -> None:
        nonlocal earning
        total, signed = payments[earning.paid % len(payments)]
        if total <= earning.paid:  # the prepared ones are through: from the beginning
            earning = channel
            return
        commitment.check_payment(earning.paid, total, signed)
        earning = channels.pay(earning, total, signed)

    paying = earning = channel
    payments = [(Sat(n), commitment.pay(Sat(n), sign)) for n in range(1, BURST + 1)]
    return {
        "raw_sign_per_s": rate(lambda: signer.sign(digest, verify=False)),
        "pay_per_s": rate(pay),
        "raw_verify_per_s": rate(lambda: ssa.verify(digest, point, signature)),
        "accept_per_s": rate(accept),
    }


def rate(work: Callable[[], object]) -> int:
    return max(_rate(work) for _ in range(3))


def _rate(work: Callable[[], object]) -> int:
    done, began = 0, time.process_time()  # of one core: what else the machine does is no matter
    while (took := time.process_time() - began) < SECONDS:
        for _ in range(100):
            work()
        done += 100
    return int(done / took)


async def durable() -> int:
    """Payments that come as fast as they can, through the driver: it steps many and commits them together."""
    curve = Secp()
    channel, commitment, sign = a_channel(curve)
    policy = ProviderPolicy(tariff=Tariff(cpu_hour=1), capacity=Resources(1000, 1 << 30, 1 << 30))
    payments = [Payment(channel.id, Sat(n), commitment.pay(Sat(n), sign)) for n in range(1, 5 * BURST)]
    # On the disk of the checkout: a temporary folder may be in memory, where a sync costs nothing.
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        journal = SqliteJournal(Path(folder) / "state.db")
        mind = selling.restore(policy, [], [channel])
        driver = Driver(mind, selling.step, changed, journal, lambda _: None, SystemClock())
        running = asyncio.get_running_loop().create_task(driver.run())
        began = time.perf_counter()
        for payment in payments:
            held = driver.state.channels[channel.id]
            if payment.paid > held.paid:
                commitment.check_payment(held.paid, payment.paid, payment.signature)
            await driver.post(Received(channel.peer, payment))
        await driver.tell(Received(channel.peer, payments[-1]))
        took = time.perf_counter() - began
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        journal.close()
    assert driver.state.channels[channel.id].paid == payments[-1].paid
    return int(len(payments) / took)


# -- a thousand leases ----------------------------------------------------------------------------------
def leases(options: argparse.Namespace) -> dict[str, Any]:
    chain = Regtest(f"unix://{options.engines[0]}")
    chain.start()
    try:
        with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
            return _leases(options, chain, folder)
    finally:
        chain.stop()


def _leases(options: argparse.Namespace, chain: Regtest, folder: str) -> dict[str, Any]:
    rpc = {"url": chain.url, "user": chain.user, "password": chain.password}
    provider = player("provider", {"rpc": rpc, "folder": folder, "profile": options.profile})
    tenants = None
    try:
        at = json.loads(provider.stdout.readline())
        told = {"rpc": rpc, "folder": folder, "provider": at, "tenants": options.tenants}
        told["each"] = options.leases // options.tenants
        tenants = player("tenants", told)
        for address in json.loads(tenants.stdout.readline()):
            chain.give(address, 10_000_000)
        chain.mine(6)
        tenants.stdin.write("funded\n")
        tenants.stdin.flush()
        while (said := tenants.stdout.readline().strip()) != "renting":
            assert said == "waiting", f"the tenants said {said!r}"
            chain.mine()
        settled(provider, told["each"] * options.tenants)
        figures = measured(provider, options.seconds)
        if options.profile:
            ask(provider, "profile")
            time.sleep(options.seconds)
            ask(provider, "profiled")
        return figures
    finally:
        for process in (tenants, provider):
            if process is not None:
                process.stdin.close()  # each ends when nobody speaks to it any more
                process.wait(60)


def player(role: str, told: dict[str, Any]) -> Any:
    command = [sys.executable, __file__, "--play", role, "--told", json.dumps(told)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(provider: Any, question: str = "figures") -> dict[str, Any]:
    provider.stdin.write(question + "\n")
    provider.stdin.flush()
    return dict(json.loads(provider.stdout.readline()))


def settled(provider: Any, wanted: int) -> None:
    """Until every lease runs and has its first statements behind it."""
    until = time.monotonic() + SETTLE_SECONDS
    while (now := ask(provider))["running"] < wanted or now["stated_least"] < 5:
        if time.monotonic() > until:
            sys.exit(f"after {SETTLE_SECONDS} s of {wanted} leases {now['running']} run: {now}")
        time.sleep(1)


def measured(provider: Any, seconds: int) -> dict[str, Any]:
    before, began, cpu = ask(provider), time.monotonic(), cpu_seconds(provider.pid)
    time.sleep(seconds)
    after, took, used = ask(provider), time.monotonic() - began, cpu_seconds(provider.pid) - cpu

    def rate(what: str) -> int:
        return round((after[what] - before[what]) / took)

    return {
        "leases": after["leases"],
        "leases_core": round(used / took, 3),
        "leases_rss_mb": round(int(after["rss_kb"]) / 1000),
        "statements_per_s": rate("statements"),
        "payments_per_s": rate("payments"),
        "paid_sat_per_s": rate("paid_sat"),
    }


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # four files a lease
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    main()
