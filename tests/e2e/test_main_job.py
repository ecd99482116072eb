"""The main job, whole, on real parts: from ``docker compose up`` to coins settled."""

from __future__ import annotations

from devtools.localmarket import LocalMarket
from devtools.shell import wait_until
from dockage.domain.pricing import Tariff, price
from dockage.domain.usage import Usage
from e2e.stories import Site, channel, channels, close_channel


def test_a_site_is_found_served_metered_paid_and_settled_to_the_satoshi(market: LocalMarket) -> None:
    market.providers["ada"].ask("GET", "/v1/wallet")  # a wallet is made when it is first asked something
    known = {c["channel"]: c for c in channels(market.tenant)}
    before = {name: market.chain.balance(name) for name in ("tenant", "ada")}
    with Site(market, "story-main") as site:
        assert site.lease()["provider"] == market.providers["ada"].key, "the cheaper one was not chosen"
        for _ in range(150):
            assert site.answers()
        site.ticks(4)
        assert "story-main-web-1" in site.compose("ps")
    lease, ada, tenant = site.lease(), market.providers["ada"], market.tenant
    tariff = Tariff(**{k.removesuffix("_msat"): v for k, v in lease["tariff"].items()})
    assert lease["due_msat"] == price(Usage(**lease["usage"]), tariff) > 0
    assert lease["usage"]["cpu_ns"] > 0
    assert lease["usage"]["memory_mib_ms"] > 0
    assert lease["usage"]["net_out_bytes"] > 150 * 200

    paid = channel(tenant, ada.key)["paid_sat"]
    assert paid >= lease["due_msat"] // 1000, "what was due is paid, and so is what earlier leases owed"
    assert wait_until(lambda: channel(ada, tenant.key)["paid_sat"] == paid, 10)
    close_channel(market, ada)

    spent, earned = channel(tenant, ada.key), channel(ada, tenant.key)
    funded = 0 if spent["channel"] in known else spent["capacity_sat"] + spent["funding_fee_sat"]
    after = {name: market.chain.balance(name) for name in ("tenant", "ada")}
    assert after["tenant"] - before["tenant"] == spent["capacity_sat"] - spent["paid_sat"] - funded
    assert after["ada"] - before["ada"] == earned["paid_sat"] - earned["closing_fee_sat"]


def test_docker_run_prints_what_the_container_says_and_returns_its_code(market: LocalMarket) -> None:
    done = market.docker(
        "run", "--rm", "dockage/base:bookworm", "sh", "-c", "echo hello; exit 7", check=False
    )
    assert (done.stdout, done.returncode) == ("hello\n", 7)
    assert wait_until(lambda: market.docker("ps", "-aq").stdout == "", 10)
