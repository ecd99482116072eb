"""``spend`` and ``earnings`` over time, in each of their forms: the rows are the bill."""

from __future__ import annotations

import csv
import io
import time
from datetime import UTC, datetime

import pytest

from dockage.cli import accounts, plot
from dockage.domain.pricing import FIELDS, price

from .conftest import Call, value
from .parts import CHEAP, FAIR, PAST, RUNNING, TENANT, USED

DUE = price(USED, FAIR)
START = PAST // 1_000_000_000


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.usefixtures("node")
def test_csv_has_a_row_for_each_lease_and_hour_that_adds_up_to_the_bill(call: Call) -> None:
    rows = list(csv.DictReader(io.StringIO(call("spend", "--csv").stdout)))
    assert [row["start"] for row in rows] == ["2026-11-01T12:00:00Z", "2026-11-01T13:00:00Z"]
    assert {(r["lease"], r["deployment"], r["provider"]) for r in rows} == {
        (RUNNING.hex(), "shop", CHEAP.node.hex())
    }
    assert sum(int(row["due_msat"]) for row in rows) == DUE
    costs = [name for name in rows[0] if name.endswith("_msat") and name != "due_msat"]
    assert costs == [f"{name}_msat" for name in FIELDS]
    for row in rows:
        assert sum(int(row[name]) for name in costs) == int(row["due_msat"])
    assert sum(int(row["cpu_ns"]) for row in rows) == USED.cpu_ns


@pytest.mark.usefixtures("node")
def test_json_is_the_same_and_since_leaves_the_earlier_rows_out(call: Call) -> None:
    whole = value(call("spend", "--json", "--since", "2026-10-01"))
    assert whole["due_msat"] == DUE
    assert (whole["step_sec"], len(whole["rows"])) == (3600, 2)
    minutes = value(call("spend", "--json", "--step", "minute"))
    assert (minutes["due_msat"], len(minutes["rows"])) == (DUE, 3)
    later = value(call("spend", "--json", "--since", "2026-11-01T13:30:00Z"))
    assert [row["start_sec"] for row in later["rows"]] == [START + 3600]
    assert value(call("spend", "--json", "--since", "2027-01-01"))["rows"] == []


@pytest.mark.usefixtures("node")
def test_a_provider_sees_its_tenants(call: Call) -> None:
    answer = value(call("earnings", "--json", "--step", "day"))
    assert [(row["peer"], row["due_msat"]) for row in answer["rows"]] == [(TENANT.node.hex(), DUE)]
    assert call("earnings", "--csv").stdout.splitlines()[0].split(",")[4] == "tenant"
    head, row, *_ = call("earnings", "--since", "2026-10-01").stdout.splitlines()
    assert head.split() == "FROM LEASE TENANT CPU MEMORY DISK NET IN / OUT COST".split()
    assert row.startswith("2026-11-01 12:00  33333333")


@pytest.mark.usefixtures("node")
def test_a_table_for_people(call: Call) -> None:
    shown = call("spend", "--since", "2026-10-01", "--step", "day").stdout
    head, row, _, total = shown.splitlines()
    assert head.split() == "FROM LEASE DEPLOYMENT PROVIDER CPU MEMORY DISK NET IN / OUT COST".split()
    assert " ".join(row.split()) == (
        "2026-11-01 00:00 11111111 shop 8a2f1a73 90.0 core-s 16.7 MiB-h 3.3 MiB-h 3 MiB / 50 MiB 1.241 sat"
    )
    assert total == "1 row, together 1.241 sat"
    assert call("spend", "--since", "1m").stdout == "nothing was used in that time\n"


@pytest.mark.usefixtures("node")
def test_a_plot_has_price_cores_and_memory(call: Call) -> None:
    shown = call("spend", "--plot", "--since", "2026-10-01").stdout
    assert all(title in shown for title in ("sat an hour", "cores", "memory, MiB", "01 Nov"))
    assert "\x1b" not in shown, "colours are for terminals"
    assert max(map(len, shown.splitlines())) <= 100
    assert call("earnings", "--plot", "--since", "1h").stdout == "nothing was used in that time\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--since", "yesterday"), 2, "neither an age"),
        (("--step", "year"), 2, "is not one of"),
        (("--csv", "--plot"), 1, "not both (cli.form)"),
        (("--csv", "--json"), 1, "cli.form"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Call, words: tuple[str, ...], code: int, says: str) -> None:
    done = call("spend", *words)
    assert done.exit_code == code
    assert says in done.stderr.lower()


def test_ages_and_dates() -> None:
    read = accounts.WhenType().convert
    now = accounts.now()
    assert abs(read("90m", None, None) - (now - 5400)) <= 1
    assert abs(read("2w", None, None) - (now - 14 * 86_400)) <= 1
    assert read("2026-11-01T00:00:00+00:00", None, None) == int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
    assert read("999999999w", None, None) == 0


def row(start: int, msat: int, cpu_ns: int = 0) -> dict[str, object]:
    return {"start_sec": start, "due_msat": msat, "usage": {"cpu_ns": cpu_ns, "memory_mib_ms": 0}}


def test_leases_of_one_step_are_summed_and_a_single_step_is_drawn_too() -> None:
    answer = {"step_sec": 60, "rows": [row(600, 1000, 5), row(600, 500, 6), row(720, 1)]}
    assert plot.summed(answer) == {600: [1500, 11, 0], 720: [1, 0, 0]}
    one = {"step_sec": 3600, "rows": [row(7200, 10_000)]}
    assert "10" in plot.draw(one, 99_999, colour=False)
    assert "21.0" in plot.draw(one, 7200 + 1800, colour=False), "half an hour has passed of it"
