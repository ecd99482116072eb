"""A relay for money and real coins: a provider behind a NAT rents it, a tenant behind another reaches it by that."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bitcoin.node import Node
from nat import topology
from nat.bridge import bridge
from nat.conftest import Street

PORT = 3345
RELAY = f"http://{topology.PUBLIC}:{PORT}/"
NO_FRONT = {"tenant": {"enabled": False, "checks": False}}
SAT_KIB = 100
"""Openly absurd, so that a page is worth the fee of a close."""
PRICE = SAT_KIB * 1000 << 20
BUDGET = 60_000_000
"""Absurd likewise: of what a relay may state unseen, a quarter of the day's budget is the limit (``relay.dear``)."""
COINS = 1_000_000


def wait(true: Callable[[], Any], between: Callable[[], object], limit: float = 90) -> Any:
    until = time.monotonic() + limit
    while not (found := true()):
        assert time.monotonic() < until
        between()
        time.sleep(0.3)
    return found


def test_a_provider_behind_a_nat_pays_the_relay_that_a_tenant_reaches_it_by(
    street: Street, bitcoind: Node, tmp_path: Path
) -> None:
    for side in "AB":
        topology.translate(side, symmetric=True)
    where, port = str(tmp_path / "bitcoind.sock"), int(bitcoind.url.rpartition(":")[2])
    names = {who: f"{who}-{secrets.token_hex(4)}" for who in ("seller", "home")}
    for name in names.values():
        bitcoind.wallet(name)
    bitcoind.give(bitcoind.wallet(names["home"]).rpc("getnewaddress", "", "bech32m"), COINS)

    def coins(who: str) -> dict[str, Any]:
        access = {"url": bitcoind.url, "user": bitcoind.user, "password": bitcoind.password}
        return {"network": "regtest", "bitcoind_wallet": names[who], "poll_sec": 0.3, **access}

    with bridge(where, port):
        for agent in (street.public, street.b):
            agent.do("lead", port=port, path=where)
        public = street.public.do(
            "daemon",
            config={
                "node": {"bind": f"{topology.PUBLIC}:4740", "market": True, "stamp_bits": 0},
                "relay": {"listen": f"{topology.PUBLIC}:{PORT}", "msat_gib": PRICE},
                "provider": {"enabled": True},
                "bitcoin": coins("seller"),
                **NO_FRONT,
            },
        )["key"]
        seeds = {"seeds": [f"{public}@{topology.PUBLIC}:4740"], "stamp_bits": 0}
        provider = street.b.do(
            "daemon",
            config={
                "node": {**seeds, "relay_budget_sat": BUDGET},
                "provider": {"enabled": True, "price_preset": "free"},
                "bitcoin": coins("home"),
                "channel": {"overhead_percent": 2},
                **NO_FRONT,
            },
        )["key"]
        mine = bitcoind.mine
        assert wait(lambda: street.b.do("reached")["relay"], mine) == RELAY
        street.a.do("daemon", config={"node": seeds, **NO_FRONT})
        rented = street.a.do("rent", provider=provider)
        street.b.do("contain", lease=rented["lease"])
        got = street.a.do("get", lease=rented["lease"], provider=provider)
        assert got["answer"].endswith("from behind the other router\n")
        assert got["path"] == "relay"

        def billed() -> Any:
            bill = street.b.do("pays")
            return bill["paid_sat"] > 2_000 and bill["counted_bytes"] > 20_000 and bill

        bill = wait(billed, lambda: None)
        assert bill["dispute"] is None
        assert bill["stated_bytes"] <= bill["counted_bytes"] + (64 << 20)
        street.b.do("close")
        earned = wait(lambda: street.public.do("earned"), lambda: mine(2))
        assert earned["sat"] >= bill["paid_sat"]
        assert wait(lambda: street.public.do("worth") == earned["sat"] - earned["close_fee"], mine)
    for agent in (street.a, street.b, street.public):
        agent.do("stop_daemon")
