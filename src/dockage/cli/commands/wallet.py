"""``dockage wallet``: the node's own coins; a light wallet of twelve words: made, backed up, brought back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dockage.cli import format as show
from dockage.cli import process
from dockage.cli.client import Json
from dockage.cli.nodeargs import mainnet_option
from dockage.cli.options import Group, json_option, yes_option
from dockage.cli.session import Session
from dockage.cli.table import facts

NETWORK_HELP = "bitcoin, testnet4, testnet, signet or regtest; by default that of config.toml."
BIRTHDAY_HELP = "Block before which nothing was received, HEIGHT:HASH; 0 for the whole chain."


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=(
        "dockage wallet new --network signet",
        "dockage wallet receive",
        "dockage wallet",
        "dockage wallet send bc1p... 50000",
        "dockage wallet backup > on-paper.txt",
    ),
)
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show the balance; receive and send coins on the chain; make, back up and restore a light wallet."""
    session = ctx.find_object(Session)
    if ctx.invoked_subcommand is None and session is not None:
        _balance(session)


# -- coins: by way of the daemon -----------------------------------------------------------------------
@command.command(examples=("dockage wallet balance --json",))
@json_option
@click.pass_obj
def balance(session: Session) -> None:
    """Show the balance."""
    _balance(session)


def _balance(session: Session) -> None:
    answer: Json = session.client.get("wallet")
    pending, locked = answer["pending_sat"], answer["in_channels_sat"]
    text = facts(
        [
            ("confirmed", show.whole_sat(answer["confirmed_sat"])),
            ("pending", show.whole_sat(pending) if pending else ""),
            ("in channels", f"{show.whole_sat(locked)} not spent yet" if locked else ""),
            ("wallet", f"{answer['wallet']}, on {answer['network']}"),
            ("chain", answer["error"] or f"block {answer['height']:,}"),
        ]
    )
    session.show(answer, text)


@command.command(examples=("dockage wallet receive", "dockage wallet receive --no-qr"))
@click.option("--qr/--no-qr", default=None, help="Draw it for a camera; by default in a terminal.")
@json_option
@click.pass_obj
def receive(session: Session, qr: bool | None) -> None:
    """Print a fresh address."""
    answer = session.client.post("wallet", "receive")
    if qr if qr is not None else sys.stdout.isatty() and not session.json:
        session.say(drawn(answer["address"]))
    session.show(answer, answer["address"])


def drawn(address: str) -> str:
    """A QR code (BIP21) of half blocks. In capitals it takes fewer of them, and means the same (BIP173)."""
    import io

    import segno

    out = io.StringIO()
    segno.make(f"BITCOIN:{address.upper()}", error="l", micro=False).terminal(out, compact=True)
    return out.getvalue()


@command.command(
    examples=("dockage wallet send bc1p... 50000", "dockage wallet send bc1p... 50000 --feerate 2 --yes")
)
@click.argument("address")
@click.argument("sat", type=click.IntRange(1))
@click.option(
    "--feerate", type=click.FloatRange(1), metavar="SAT_PER_VB", help="By default as the chain is now."
)
@yes_option
@json_option
@click.pass_obj
def send(session: Session, address: str, sat: int, feerate: float | None, yes: bool) -> None:
    """Pay SAT satoshis to ADDRESS on the chain. This cannot be undone."""
    wanted: dict[str, Any] = {"address": address, "amount_sat": sat}
    if feerate is not None:
        wanted["feerate"] = round(feerate * 1000)
    cost = session.client.post("wallet", "send", body={**wanted, "preview": True})
    session.confirm(
        f"Send {show.whole_sat(sat)} to {address}, and {show.whole_sat(cost['fee_sat'])} of fee "
        f"({cost['feerate'] / 1000:g} sat/vB)?",
        yes=yes,
    )
    answer = session.client.post("wallet", "send", body={**wanted, "feerate": cost["feerate"]})
    session.show(
        answer,
        f"sent {show.whole_sat(sat)} for a fee of {show.whole_sat(answer['fee_sat'])}: {answer['txid']}",
    )


# -- the light wallet itself: without a daemon -----------------------------------------------------------
@command.command(
    examples=(
        "dockage wallet new --network signet",
        "dockage wallet new --network bitcoin --json > words.json",
    )
)
@click.option("--network", default="", metavar="NETWORK", help=NETWORK_HELP)
@click.option("--birthday", default="", metavar="HEIGHT:HASH", help="A recent block; by default one we know.")
@mainnet_option
@json_option
@click.pass_obj
def new(session: Session, network: str, birthday: str, mainnet: bool | None) -> None:
    """Make a light wallet: twelve words, and no bitcoin node of your own."""
    from dockage.daemon import light

    _refuse_daemon(session)
    chain = light.network_for(session.home, network, mainnet=bool(mainnet))
    made = light.make(session.home, chain, birthday)
    session.say(
        "Write these words down, in this order. Whoever has them has the coins; without them nobody has."
    )
    session.show(_shown(made), _numbered(made.words))
    _tell_config(session, chain)


@command.command(
    examples=(
        "dockage wallet restore --network signet",
        "dockage wallet restore --network bitcoin --birthday 935000:00000000... --channels channels.txt",
        "dockage wallet restore < words.txt",
    )
)
@click.option("--network", default="", metavar="NETWORK", help=NETWORK_HELP)
@click.option("--birthday", default="", metavar="HEIGHT:HASH", help=BIRTHDAY_HELP)
@click.option(
    "--channels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The notes of channels, from the backup or from HOME/wallet/channels.txt.",
)
@mainnet_option
@json_option
@click.pass_obj
def restore(
    session: Session, network: str, birthday: str, channels: Path | None, mainnet: bool | None
) -> None:
    """Bring a light wallet back from its words, which are asked for or read from stdin.

    With the same words on the same home it reads the chain again, from the birthday on.
    """
    from dockage.daemon import light

    _refuse_daemon(session)
    chain = light.network_for(session.home, network, mainnet=bool(mainnet))
    notes = _note_lines(channels.read_text()) if channels else []
    back = light.restore(session.home, chain, _ask_words(), birthday, notes)
    begin = back.birthday if back.birthday != "0" else "the first block that matters"
    session.show(
        {**_shown(back), "words": ""},
        f"restored; the chain is read from {begin} on as soon as the daemon runs (`dockage wallet` shows how far)\n"
        f"{show.plural(len(back.notes), 'channel')} brought back",
    )
    _tell_config(session, chain)


@command.command(examples=("dockage wallet backup", "dockage wallet backup --yes > on-paper.txt"))
@yes_option
@json_option
@click.pass_obj
def backup(session: Session, yes: bool) -> None:
    """Print the words and the birthday of the light wallet, and a note for each open channel.

    The words alone bring the coins back. The notes are not secret; with the words they bring back the refund of a
    channel whose provider has vanished. A note is new with each channel: HOME/wallet/channels.txt always has them all.
    """
    from dockage.daemon import light

    session.confirm("Show the words? Whoever sees them can take the coins.", yes=yes)
    saved = light.backup(session.home)
    session.show(_shown(saved), "\n".join([saved.words, f"birthday {saved.birthday}", *saved.notes]))


def _shown(saved: Any) -> Json:
    return {
        "words": saved.words,
        "network": saved.network,
        "birthday": saved.birthday,
        "channels": list(saved.notes),
    }


def _numbered(words: str) -> str:
    return "\n".join(f"{n:2}. {word}" for n, word in enumerate(words.split(), 1))


def _note_lines(text: str) -> list[str]:
    """Of a whole backup only the notes."""
    return [line for line in text.splitlines() if line.startswith("dockage-channel:")]


def _ask_words() -> str:
    """Never on the command line: everybody on the machine may read those."""
    if sys.stdin.isatty():
        return str(click.prompt("The words", hide_input=True, err=True))
    # Of a whole backup only the first line; numbered words, one a line, are taken too.
    lines = sys.stdin.read(4096).splitlines()
    text = " ".join(line for line in lines if not line.startswith(("birthday", "dockage-channel:")))
    return " ".join(word for word in text.split() if not word.rstrip(".").isdecimal())


def _refuse_daemon(session: Session) -> None:
    process.refuse_second(session.home, "stop it first with `dockage daemon --stop`")


def _tell_config(session: Session, network: str) -> None:
    from dockage.daemon import config, loading, saving

    name = config.user_name(network)
    if not saving.choose_light(session.home, network):
        session.say(f'To use it, set network = "{name}" and wallet = "light" under [bitcoin] in config.toml.')
    elif not loading.load(session.home).bitcoin.peers:
        session.say(
            "It needs a bitcoin node to ask: set bitcoin.peers in config.toml, or bitcoin.discover = true to find some."
        )
