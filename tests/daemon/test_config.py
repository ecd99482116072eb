"""A bad setting is named before anything starts; mainnet needs to be asked for twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dockage.adapters.system.resolvers import resolvers
from dockage.daemon import config, loading
from dockage.daemon.provider import for_sale
from dockage.domain.errors import UsageError
from dockage.domain.pricing import PRESETS, Tariff
from dockage.domain.resources import Resources
from dockage.domain.units import GIB

KEY = "ab" * 32


def load(home: Path, text: str, overrides: Any = None) -> config.Config:
    (home / "config.toml").write_text(text)
    return loading.load(home, overrides)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert loading.load(tmp_path) == config.Config()


def test_flags_override_the_file_field_by_field(tmp_path: Path) -> None:
    text = '[node]\nbind = "127.0.0.1:1"\nregions = ["eu"]\n[bitcoin]\nnetwork = "regtest"\n'
    loaded = load(tmp_path, text, {"node": {"bind": "127.0.0.1:2"}, "provider": {"enabled": True}})
    assert (loaded.node.bind, loaded.node.regions) == ("127.0.0.1:2", ("eu",))
    assert (loaded.bitcoin.network, loaded.provider.enabled) == ("regtest", True)


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("[node", "config.unreadable", "config.toml"),
        ("[nodes]\n", "config.invalid", "nodes"),
        ("node = 3\n", "config.invalid", "$.node"),
        ("[node]\nbinds = 1\n", "config.invalid", "binds"),
        ('[node]\nbind = "here"\n', "config.invalid", "node.bind"),
        ('[node]\nbind = "example.org:1"\n', "config.invalid", "node.bind"),
        ('[node]\nbind = "1.2.3.4:70000"\n', "config.invalid", "node.bind"),
        ('[node]\nseeds = ["nobody"]\n', "config.seed", "node.seeds"),
        (f'[node]\nseeds = ["{KEY}@1.2.3.4:0"]\n', "config.seed", "node.seeds"),
        ('[node]\nseeds = ["abc@1.2.3.4:5"]\n', "config.key", "abc"),
        ("[node]\nstamp_bits = 64\n", "config.invalid", "$.node.stamp_bits"),
        ('[node]\nregions = [""]\n', "config.invalid", "$.node.regions"),
        ('[provider]\nprice_preset = "dear"\n', "config.invalid", "provider.price_preset"),
        ("[provider.tariff]\ncpu_hour = -1\n", "config.invalid", "provider.tariff"),
        ("[provider.tariff]\ncpu = 1\n", "config.invalid", "$.provider.tariff"),
        ("[provider]\npatience_sec = 0\n", "config.invalid", "$.provider.patience_sec"),
        ("[provider]\ncpu_milli = -5\n", "config.invalid", "$.provider.cpu_milli"),
        ('[provider]\nonly_for = ["xyz"]\n', "config.key", "xyz"),
        ('[provider]\nenabled = "perhaps"\n', "config.invalid", "$.provider.enabled"),
        ("[tenant]\nlinger_sec = -1\n", "config.invalid", "$.tenant.linger_sec"),
        ('[bitcoin]\nnetwork = "dogecoin"\n', "config.invalid", "bitcoin.network"),
        ("[bitcoin]\npoll_sec = 0\n", "config.invalid", "$.bitcoin.poll_sec"),
        ("[channel]\noverhead_percent = 0\n", "config.invalid", "$.channel.overhead_percent"),
        ("[channel]\nexpiry_blocks = 10\n", "config.invalid", "$.channel.expiry_blocks"),
        ("[channel]\nhours = 0.5\n", "config.invalid", "$.channel.hours"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, text: str, code: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert caught.value.code == code
    assert named in caught.value.message


def test_a_bad_section_is_named_also_where_a_flag_overrides_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "node = 3\n", {"node": {"market": True}})
    assert "$.node" in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError) as caught:
        loading.load(tmp_path)
    assert caught.value.code == "config.unreadable"


def test_mainnet_is_refused_without_the_flag_and_says_which(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, '[bitcoin]\nnetwork = "main"\n')
    assert caught.value.code == "config.mainnet"
    flag = "i_understand_mainnet_is_experimental"
    assert flag in caught.value.message
    assert load(tmp_path, f'[bitcoin]\nnetwork = "main"\n{flag} = true\n').bitcoin.network == "main"


def test_a_price_without_a_wallet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "[provider]\nenabled = true\n")
    assert caught.value.code == "provider.no-wallet"
    assert load(tmp_path, '[provider]\nenabled = true\nprice_preset = "free"\n').provider.enabled


def test_the_machines_name_servers_may_be_asked_wherever_they_are(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "# home\nnameserver 192.168.1.1\nnameserver 9.9.9.9\nnameserver 127.0.0.53\nnameserver\nsearch lan\n"
    )
    assert resolvers(conf) == ("192.168.1.1", "9.9.9.9")
    assert resolvers(tmp_path / "none") == ()


def test_own_prices_go_before_a_preset(tmp_path: Path) -> None:
    assert config.tariff(config.Config()) == PRESETS["fair"]
    own = load(tmp_path, '[provider]\nprice_preset = "nonsense"\n[provider.tariff]\ncpu_hour = 5\n')
    assert config.tariff(own) == Tariff(cpu_hour=5)


@pytest.mark.parametrize(
    ("said", "chain"),
    [
        ("bitcoin", "main"),
        ("testnet", "test"),
        ("testnet4", "testnet4"),
        ("signet", "signet"),
        ("main", "main"),
    ],
)
def test_a_network_has_the_name_that_people_use(tmp_path: Path, said: str, chain: str) -> None:
    flag = "i_understand_mainnet_is_experimental = true\n"
    bitcoin = load(tmp_path, f'[bitcoin]\nnetwork = "{said}"\nwallet = "light"\n{flag}').bitcoin
    assert (bitcoin.network, bitcoin.wallet) == (chain, "light")


def test_there_are_two_kinds_of_wallets(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bitcoind, light"):
        load(tmp_path, '[bitcoin]\nnetwork = "signet"\nwallet = "paper"\n')


@pytest.mark.parametrize(
    ("text", "sold"),
    [
        ("", Resources(8000, 12 * GIB, 50 * GIB)),
        ("share_percent = 25\n", Resources(2000, 4 * GIB, 25 * GIB)),
        ("share_percent = 25\nmemory_mib = 1024\n", Resources(2000, GIB, 25 * GIB)),
        ("cpu_milli = 1500\ndisk_mib = 2048\n", Resources(1500, 12 * GIB, 2 * GIB)),
    ],
)
def test_a_share_of_the_machine_is_sold_and_a_size_overrules_it(
    tmp_path: Path, text: str, sold: Resources
) -> None:
    provider = load(tmp_path, f"[provider]\n{text}").provider
    assert for_sale(provider, Resources(8000, 16 * GIB, 100 * GIB)) == sold
