"""``--json`` of every command is one JSON value with the documented keys, and nothing else on stdout."""

from __future__ import annotations

import json

import click
import pytest

from dockage.cli.main import COMMANDS, main

from .conftest import Call, value

LEASE = {
    "lease",
    "deployment",
    "provider",
    "state",
    "reason",
    "limits",
    "tariff",
    "usage",
    "due_msat",
    "msat_hour_max",
}
OFFER = {"provider", "region", "architecture", "free", "tariff", "msat_hour_max", "obstacles", "age_sec"}
CHANNEL = {
    "channel",
    "role",
    "peer",
    "state",
    "capacity_sat",
    "paid_sat",
    "remaining_sat",
    "overhead_sat_now",
    "overhead_sat",
    "overhead_percent",
    "expiry_blocks",
}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (
            ("status",),
            {"version", "node", "home", "addresses", "provider", "tenant", "bitcoin", "uptime_sec"},
        ),
        (("id",), {"node"}),
        (("link", "list"), {"machines"}),
        (("market",), {"offers", "why"}),
        (("spend",), {"leases", "running", "msat_hour_max", "due_msat", "paid_sat"}),
        (("earnings",), {"leases", "running", "ended", "due_msat", "paid_sat", "settled_sat", "fees_sat"}),
        (("why",), {"offers", "why"}),
        (("why", "shop"), {"leases", "channels", "kept"}),
        (("drain", "--cancel"), {"ending", "leases"}),
        (("channels",), {"channels"}),
        (("channels", "backup"), {"network", "channels"}),
        (("channels", "close", "bbbb", "--wait", "0"), {"closed", "failed"}),
        (("wallet",), {"network", "confirmed_sat", "pending_sat", "in_channels_sat"}),
        (("wallet", "balance"), {"network", "confirmed_sat", "pending_sat", "in_channels_sat"}),
        (("wallet", "receive"), {"address"}),
        (("completion", "zsh"), {"shell", "script"}),
    ],
)
def test_the_keys_are_there(call: Call, words: tuple[str, ...], keys: set[str]) -> None:
    assert value(call(*words, "--json")).keys() >= keys


@pytest.mark.usefixtures("node")
def test_the_rows_have_their_keys(call: Call) -> None:
    assert all(lease.keys() >= LEASE for lease in value(call("spend", "--all", "--json"))["leases"])
    assert all(offer.keys() >= OFFER for offer in value(call("market", "--json"))["offers"])
    assert all(channel.keys() >= CHANNEL for channel in value(call("channels", "--json"))["channels"])


@pytest.mark.usefixtures("node")
def test_a_payment_tells_its_transaction(call: Call) -> None:
    address = value(call("wallet", "receive", "--json"))["address"]
    assert value(call("wallet", "send", address, "5000", "--json")).keys() == {"txid", "fee_sat", "feerate"}


def leaves() -> list[tuple[str, ...]]:
    context, found = click.Context(main), []
    for name in COMMANDS:
        command = main.get_command(context, name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in command.commands]
    return found


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_every_command_has_json_help_and_examples(call: Call, words: tuple[str, ...]) -> None:
    shown = call(*words, "--help").stdout
    assert "--json" in shown
    assert "Examples:" in shown
    assert f"Usage: dockage {words[0]}" in shown


def test_an_error_is_json_too(call: Call) -> None:
    for words in (("spend",), ("spend", "--nonsense"), ("why", "x")):
        done = call(*words, "--json")
        assert done.stdout == ""
        assert json.loads(done.stderr).keys() == {"code", "message"}
