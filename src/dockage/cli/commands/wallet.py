"""``dockage wallet``: the node's own coins."""

from __future__ import annotations

import click

from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.options import Group, json_option, yes_option
from dockage.cli.session import Session
from dockage.cli.table import facts


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=("dockage wallet", "dockage wallet receive", "dockage wallet send bc1p... 50000"),
)
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show the balance; receive and send coins on the chain."""
    session = ctx.find_object(Session)
    if ctx.invoked_subcommand is None and session is not None:
        _balance(session)


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
            ("network", answer["network"]),
        ]
    )
    session.show(answer, text)


@command.command(examples=("dockage wallet receive",))
@json_option
@click.pass_obj
def receive(session: Session) -> None:
    """Print a fresh address."""
    answer = session.client.post("wallet", "receive")
    session.show(answer, answer["address"])


@command.command(examples=("dockage wallet send bc1p... 50000",))
@click.argument("address")
@click.argument("sat", type=click.IntRange(1))
@yes_option
@json_option
@click.pass_obj
def send(session: Session, address: str, sat: int, yes: bool) -> None:
    """Pay SAT satoshis to ADDRESS on the chain. This cannot be undone."""
    session.confirm(f"Send {show.whole_sat(sat)} to {address}?", yes=yes)
    answer = session.client.post("wallet", "send", body={"address": address, "amount_sat": sat})
    session.show(
        answer,
        f"sent {show.whole_sat(sat)} for a fee of {show.whole_sat(answer['fee_sat'])}: {answer['txid']}",
    )
