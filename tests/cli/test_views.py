"""What a person sees: exact, for a node in a known state."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockage import __version__
from dockage.cli import leases
from dockage.cli.commands import market
from dockage.daemon.node import Node
from dockage.domain.units import Instant

from .conftest import Call, value
from .parts import CHEAP, DEAR, ME


@pytest.mark.usefixtures("node")
def test_status(call: Call, home: Path) -> None:
    assert call("status").stdout == (
        f"node       {ME.node.hex()}\n"
        f"home       {home}\n"
        "addresses  127.0.0.1:1001\n"
        "sells      3.5 cores, 7.8 GiB memory, 99 GiB disk free in earth\n"
        "machines   1 of your own linked\n"
        f"docker     export DOCKER_HOST=unix://{home}/docker.sock\n"
        "bitcoin    regtest, block 1\n"
        "up for     1 h 01 min\n"
        f"version    dockage {__version__}\n"
    )


@pytest.mark.usefixtures("node")
def test_spend_shows_what_runs_and_what_it_costs(call: Call) -> None:
    head, row, rest = call("spend").stdout.split("\n", 2)
    assert head.split() == (
        "LEASE DEPLOYMENT PROVIDER STATE TIME CPU MEMORY DISK NET IN / OUT DUE AVERAGE AT MOST".split()
    )
    assert " ".join(row.split()) == (
        "11111111 shop 8a2f1a73 running 10 min 90.0 core-s 100 MiB 20 MiB 3 MiB / 50 MiB "
        "1.241 sat 7.446 sat/h 5.1 sat/h"
    )
    assert rest == "\n1 lease running, at most 5.1 sat an hour; due so far 2.482 sat, paid 1 sat\n"


@pytest.mark.usefixtures("node")
def test_deputies_of_ours_and_whose_we_are(call: Call) -> None:
    lines = [line.split("  ") for line in call("deputy").stdout.splitlines()]
    assert [[cell.strip() for cell in line if cell] for line in lines] == [
        ["DEPLOYMENT", "DEPUTY", "BUDGET", "GOOD FOR", "STATE"],
        ["shop", "laptop (faa8e185)", "500 sat", "2 d 2 h", "unknown: the deputy does not answer"],
        ["DEPUTY OF", "DEPLOYMENT", "SPENT", "GOOD FOR", "STATE"],
        [
            "laptop (faa8e185)",
            "blog",
            "1,234 sat of 2000 sat",
            "2 d 2 h",
            "runs here as blog-faa8e185, 0 replicas",
        ],
    ]
    assert value(call("deputy", "list", "--json"))["budget_sat_max"] == 9000
    refused = call("deputy", "add", "nothing", "laptop")
    assert (refused.exit_code, refused.stderr.split(":")[0]) == (1, "error")
    assert "no deployment nothing" in refused.stderr


@pytest.mark.usefixtures("node")
def test_ended_leases_are_shown_on_demand_and_say_why(call: Call) -> None:
    assert "blog" not in call("spend").stdout
    everything = call("spend", "--all").stdout
    assert "blog        8a2f1a73  ended    9 min 00 s" in everything
    assert "22222222: nothing was heard of the provider for too long (provider.silent)" in everything


@pytest.mark.usefixtures("node")
def test_earnings(call: Call) -> None:
    assert call("earnings").stdout == (
        "LEASE     TENANT    STATE      TIME  CONTAINERS          CPU   MEMORY    DISK    NET IN / OUT        DUE\n"
        "33333333  faa8e185  running  10 min           2  90.0 core-s  100 MiB  20 MiB  3 MiB / 50 MiB  1.241 sat\n"
        "\n1 lease running, 0 ended; due 1.241 sat, paid 1 sat, of which 0 sat settled on the chain for 0 sat of fees\n"
    )


@pytest.mark.usefixtures("node")
def test_market_prices_the_size_asked_about(call: Call) -> None:
    assert call("market", "--cpus", "1").stdout == (
        "PROVIDER  REGION  ARCH    FREE CORES  MEMORY     DISK     AT MOST    A MONTH  RISK                  FITS\n"
        "8a2f1a73  earth   x86_64           4   8 GiB  100 GiB  10.1 sat/h  7,272 sat  +59% provider.silent  yes\n"
        "96cf7bf0  earth   x86_64         0.5   8 GiB  100 GiB  10.1 sat/h  7,272 sat  "
        "+10% new              only 0.5 cores left\n"
        "\n2 shown of 2 offers, 1 of which fit\n"
    )
    assert "0.5 cores" not in call("market", "--cpus", "1", "--fits").stdout


@pytest.mark.usefixtures("node")
def test_market_draws_how_many_offers_ask_how_much(call: Call) -> None:
    assert call("market", "--histogram").stdout == (
        "SAT/H AT MOST  OFFERS\n"
        "10 - 11             2  ########################################\n"
        "\n2 shown of 2 offers, 1 of which fit\n"
    )
    [bar] = value(call("market", "--json"))["histogram"]
    assert bar == {"from_sat_hour": 10, "to_sat_hour": 11, "offers": 2}


def test_a_histogram_counts_every_price_once_and_an_absurd_one_flattens_nothing() -> None:
    prices = [n * 1000 for n in range(200)] + [10**9]
    rows = market.buckets(prices)
    assert sum(row["offers"] for row in rows) == len(prices)
    assert len(rows) <= 10
    assert max(row["offers"] for row in rows) <= 30
    assert market.buckets([]) == []


@pytest.mark.usefixtures("node")
def test_why_names_the_smallest_change_that_would_help(call: Call) -> None:
    said = call("why", "--cpus", "5").stdout
    assert "With 4 cores instead of 5 1 offer would fit, the cheapest of 8a2f1a73 for" in said
    [first, *_] = value(call("why", "--cpus", "5", "--json"))["changes"]
    assert (first["what"], first["effort_permille"], first["offers"]) == ("cpu_milli", 200, 1)


@pytest.mark.usefixtures("node")
def test_market_can_be_sorted_and_capped(call: Call) -> None:
    most_cores = value(call("market", "--sort", "cpus", "--cpus", "0.5", "--json"))["offers"]
    assert [offer["provider"] for offer in most_cores] == [CHEAP.node.hex(), DEAR.node.hex()]
    capped = call("market", "--max-price", "5").stdout
    assert "costs up to 10.1 sat an hour" in capped
    assert "none of 2 offers fits" in capped


@pytest.mark.usefixtures("node")
def test_why_tells_the_story_of_a_deployment(call: Call) -> None:
    assert call("why", "blog").stdout == (
        "lease                22222222222222222222222222222222\n"
        "deployment           blog\n"
        f"provider             {CHEAP.node.hex()}\n"
        "state                ended after 9 min 00 s\n"
        "limits               0.5 cores, 256 MiB memory, 1 GiB disk\n"
        "why                  nothing was heard of the provider for too long (provider.silent)\n"
        "refused by 96cf7bf0  no room left (capacity.full)\n"
        "due                  1.241 sat\n"
    )


@pytest.mark.usefixtures("node")
def test_why_without_a_name_asks_the_market(call: Call) -> None:
    assert call("why").stdout == (
        "nothing stands in the way: 1 of 2 offers fit, the cheapest is 8a2f1a73 for 10.1 sat/h at most\n"
    )
    assert "only 4 cores left" in call("why", "--cpus", "8").stdout


@pytest.mark.usefixtures("node")
def test_a_drain_says_when_the_leases_end(call: Call) -> None:
    said = call("drain", "--notice", "2h", "--reason", "the machine moves house").stdout
    assert said.startswith("nothing new is sold; what runs ends at 20")
    assert "in 2 h 00 min: the machine moves house (provider.draining)" in said
    assert "33333333" in said
    assert call("drain", "--cancel").stdout == "on the market\n"


@pytest.mark.usefixtures("node")
def test_channels(call: Call) -> None:
    assert call("channels").stdout == (
        "CHANNEL   ROLE     PEER      STATE                   CAPACITY   PAID        LEFT              FEES  EXPIRES\n"
        "aaaaaaaa  paying   8a2f1a73  open                  20,000 sat  1 sat  19,669 sat  359 sat (1.79 %)  "
        "in 2016 blocks (about 14 d 0 h)\n"
        "cccccccc  paying   96cf7bf0  1 of 1 confirmations  20,000 sat  0 sat  19,670 sat  359 sat (1.79 %)  "
        "in 2016 blocks (about 14 d 0 h)\n"
        "bbbbbbbb  earning  faa8e185  open                  20,000 sat  1 sat  19,669 sat  359 sat (1.79 %)  "
        "in 2016 blocks (about 14 d 0 h)\n"
    )


@pytest.mark.usefixtures("node")
def test_wallet(call: Call) -> None:
    assert call("wallet").stdout == (
        "confirmed    100,000 sat\nin channels  39,999 sat not spent yet\n"
        "wallet       bitcoind, on regtest\nchain        block 1\n"
    )
    assert call("wallet", "balance").stdout == call("wallet").stdout
    address = call("wallet", "receive").stdout.strip()
    assert address.startswith("bcrt1p")
    assert call("wallet", "send", address, "5000").stdout.startswith("sent 5,000 sat for a fee of 154 sat: ")


@pytest.mark.usefixtures("node")
def test_id(call: Call) -> None:
    assert call("id").stdout == f"{ME.node.hex()}\n"


def test_id_needs_no_daemon(call: Call) -> None:
    first = call("id").stdout
    assert len(first) == 65
    assert call("id").stdout == first


def test_the_rate_now_follows_the_last_seconds() -> None:
    """Not the average: what was spent an hour ago says nothing about now."""
    rates = leases.RateNow()

    def look(at_ms: int, due: int) -> dict[str, int]:
        return rates.look([{"lease": "a", "due_msat": due, "stated_at_ms": at_ms}], now=at_ms / 1000)

    assert look(0, 5_000_000) == {}
    assert look(1000, 5_001_000) == {"a": 3_600_000}
    assert look(2000, 5_003_000) == {"a": 5_400_000}
    assert look(60_000, 5_003_000) == {"a": 0}


def test_closing_a_channel_tells_the_mind(call: Call, node: Node) -> None:
    said = call("channels", "close", "bbbb", "--wait", "0").stdout
    assert said == "bbbbbbbb (earning): not signed yet; it is asked for again at each block\n"
    assert node.provider is not None
    assert all(c.close_at != Instant(0) for c in node.provider.state.channels.values())


def test_close_all_leaves_what_a_lease_needs(call: Call, node: Node) -> None:
    done = call("channels", "close", "--all", "--wait", "0")
    assert done.exit_code == 1
    assert done.stdout == (
        "cccccccc (paying): the provider has not answered yet; it is asked again at each look at the chain, and in "
        "2016 blocks all of it comes back without the provider\n"
        "bbbbbbbb (earning): not signed yet; it is asked for again at each block\n"
        "not closed: aaaaaaaa: it pays for shop: take that down first (dockage down) (channel.in-use)\n"
    )


@pytest.mark.usefixtures("node")
def test_a_backup_names_every_channel_of_ours_and_warns(call: Call) -> None:
    done = call("channels", "backup")
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("tr(") and line.endswith(":0, from block 2016 on, regtest") for line in lines)
    assert "keep these lines like money" in done.stderr


@pytest.mark.usefixtures("node")
def test_an_upgrade_that_the_daemon_knows_nothing_of_is_told(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dockage.cli.commands.daemon.__version__", "99.1")
    assert f"dockage {__version__}; this program is 99.1: restart the daemon" in call("status").stdout


@pytest.mark.usefixtures("node")
def test_an_answer_of_the_program_from_before_an_upgrade_is_no_trace(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(_: object) -> str:
        raise KeyError("a field that it does not know")

    monkeypatch.setattr("dockage.cli.commands.status.summary", older)
    assert call("status").exit_code == 70  # of one version: a bug of ours
    monkeypatch.setattr("dockage.cli.main.__version__", "99.1")
    done = call("status")
    assert (done.exit_code, "daemon.other-version" in done.stderr) == (1, True)
