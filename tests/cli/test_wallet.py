"""The light wallet from the command line: made, shown, brought back; words never on the command line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from dockage.cli.commands.wallet import drawn
from dockage.daemon import light
from dockage.domain.channel import Channel, ChannelState, Terms
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.units import Sat
from dockage.protocol.channel_note import encode_note

from .conftest import Call, value

WORDS = "abandon " * 11 + "about"
BLOCK = "7" * 64


def failure(call: Call, *words: str, **more: str) -> str:
    done = call(*words, "--json", **more)
    assert done.exit_code == 1, done.output
    return str(json.loads(done.stderr.splitlines()[-1])["code"])


def test_a_new_wallet_is_words_a_birthday_and_a_setting(call: Call, home: Path) -> None:
    made = value(call("wallet", "new", "--network", "signet", "--json"))
    assert len(made["words"].split()) == 12
    assert (made["network"], made["birthday"].split(":")[0], made["channels"]) == ("signet", "290000", [])
    assert tomllib.loads((home / "config.toml").read_text())["bitcoin"] == {
        "network": "signet",
        "wallet": "light",
    }
    assert (home / "wallet" / "seed.json").stat().st_mode & 0o777 == 0o600
    saved = call("wallet", "backup", "--yes").stdout.splitlines()
    assert saved == [made["words"], f"birthday {made['birthday']}"]
    assert failure(call, "wallet", "new", "--network", "signet") == "wallet.exists"


def test_what_is_configured_is_kept(call: Call, home: Path) -> None:
    (home / "config.toml").write_text(
        '[node]\nmarket = true\n[bitcoin]\nnetwork = "regtest"\nurl = "http://x"\n'
    )
    before = (home / "config.toml").read_text()
    assert failure(call, "wallet", "new", "--network", "signet") == "wallet.wrong-network"
    done = call("wallet", "new")
    assert 'wallet = "light"' in done.stderr  # our user must choose: there is a bitcoind
    assert (home / "config.toml").read_text() == before


def test_the_numbers_of_the_words_are_no_words(call: Call, home: Path) -> None:
    shown = call("wallet", "new", "--network", "regtest").stdout
    assert shown.splitlines()[0].startswith(" 1. ")
    words = light.backup(home).words
    assert value(call("wallet", "restore", "--json", input=shown))["birthday"] == "0"
    assert light.backup(home).words == words


@pytest.mark.parametrize("network", ["bitcoin", "main"])
def test_mainnet_is_asked_for_twice(call: Call, home: Path, network: str) -> None:
    insist = "--i-understand-mainnet-is-experimental"
    for command in ("new", "restore"):
        assert failure(call, "wallet", command, "--network", network, input=WORDS) == "config.mainnet"
    assert not (home / "wallet").exists()
    assert value(call("wallet", "new", "--network", network, insist, "--json"))["birthday"].startswith(
        "935000:"
    )
    written = tomllib.loads((home / "config.toml").read_text())["bitcoin"]
    assert (written["network"], written["i_understand_mainnet_is_experimental"]) == ("bitcoin", True)


def test_without_a_network_it_asks_for_one(call: Call) -> None:
    assert failure(call, "wallet", "new") == "wallet.which-network"
    assert failure(call, "wallet", "new", "--network", "testnet9") == "config.invalid"


@pytest.mark.parametrize("network", ["testnet4", "testnet", "signet", "regtest"])
def test_every_network_can_be_chosen(call: Call, home: Path, network: str) -> None:
    value(call("wallet", "restore", "--network", network, "--birthday", f"5:{BLOCK}", "--json", input=WORDS))
    saved = value(call("wallet", "backup", "--json"))
    assert (saved["words"], saved["birthday"]) == (WORDS, f"5:{BLOCK}")


def test_a_restore_shows_no_words_and_brings_channels_back(call: Call, home: Path, tmp_path: Path) -> None:
    from dockage.adapters.bdk import Seed
    from dockage.adapters.secp import ChannelKeys, Secp

    id_, curve = ChannelId(bytes([3]) * 16), Secp()
    ours = ChannelKeys(Seed(WORDS, "regtest").channels(), curve).public("tenant", id_)
    terms = Terms(ours, curve.pubkey(bytes([9]) * 32), 900, Sat(20_000), b"\x51\x20" + bytes(32))
    note = encode_note(Channel(id_, NodeKey(bytes(32)), terms, ChannelState.OPEN, "ab" * 32, 1))
    backup = tmp_path / "backup.txt"
    backup.write_text(f"{WORDS}\nbirthday 0\n{note}\n")
    done = call(
        "wallet", "restore", "--network", "regtest", "--channels", str(backup), input=backup.read_text()
    )
    assert done.exit_code == 0, done.output
    assert "abandon" not in done.output
    assert "1 channel brought back" in done.stdout
    assert value(call("wallet", "backup", "--json"))["channels"] == [note]


def test_bad_words_are_named(call: Call, home: Path) -> None:
    assert failure(call, "wallet", "restore", "--network", "regtest", input="abandon about") == "wallet.words"
    assert failure(call, "wallet", "backup", "--yes") == "wallet.missing"
    assert not (home / "wallet").exists()


@pytest.mark.usefixtures("node")
def test_a_payment_is_shown_before_it_is_made(call: Call) -> None:
    address = call("wallet", "receive").stdout.strip()
    before = value(call("wallet", "--json"))["confirmed_sat"]
    shown = value(call("wallet", "send", address, "5000", "--feerate", "3", "--json"))
    assert (shown["feerate"], shown["fee_sat"]) == (3000, 462)
    assert value(call("wallet", "--json"))["confirmed_sat"] == before - 462  # it came back to us
    assert failure(call, "wallet", "send", address, "99999999") == "wallet.insufficient"


@pytest.mark.usefixtures("node")
def test_an_address_is_drawn_for_cameras_beside_the_answer(call: Call) -> None:
    done = call("wallet", "receive", "--qr")
    assert done.stdout.count("\n") == 1
    assert "█" in done.stderr
    assert "█" not in call("wallet", "receive").output
    assert len(drawn("bcrt1p" + "q" * 58).splitlines()) == 19
