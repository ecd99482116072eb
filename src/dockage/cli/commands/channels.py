"""``dockage channels``: the payment channels of this node; close them; the lines that get coins back without us."""

from __future__ import annotations

import click

from dockage.cli import closing, complete
from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.errors import UsageError
from dockage.cli.leases import why
from dockage.cli.options import Group, json_option, yes_option
from dockage.cli.session import Session
from dockage.cli.table import table
from dockage.domain.errors import DockageError

OVER = ("closing", "closed", "expired", "refunding", "abandoned")
"""States in which there is nothing to close any more."""


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=("dockage channels", "dockage channels close 3fa2c1", "dockage channels backup > channels.txt"),
)
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show the payment channels, to providers and from tenants."""
    session = ctx.find_object(Session)
    if ctx.invoked_subcommand is None and session is not None:
        answer = session.client.get("channels")
        session.show(answer, listing(answer["channels"]) if answer["channels"] else "no channels")


def listing(channels: list[Json]) -> str:
    head = ("CHANNEL", "ROLE", "PEER", "STATE", "CAPACITY", "PAID", "LEFT", "FEES", "EXPIRES")
    listed = table(head, map(_row, channels), right=("CAPACITY", "PAID", "LEFT", "FEES"))
    reasons = [f"{show.short(c['channel'])}: {why(c['reason'])}" for c in channels if c["reason"]]
    return "\n\n".join([listed, *(["\n".join(reasons)] if reasons else [])])


def _row(channel: Json) -> tuple[str, ...]:
    state = channel["state"]
    if state == "funded":
        state = f"{channel['confirmations']} of {channel['confirmations_needed']} confirmations"
    return (
        show.short(channel["channel"]),
        channel["role"],
        show.short(channel["peer"]),
        state,
        show.whole_sat(channel["capacity_sat"]),
        show.whole_sat(channel["paid_sat"]),
        show.whole_sat(channel["remaining_sat"]),
        f"{show.whole_sat(channel['overhead_sat_now'])} ({channel['overhead_percent']:g} %)",
        _expiry(channel["expiry_blocks"]),
    )


def _expiry(blocks: int) -> str:
    if blocks <= 0:
        return "expired"
    return f"in {show.plural(blocks, 'block')} (about {show.duration(blocks * 600)})"


@command.command(
    examples=(
        "dockage channels close 3fa2c1",
        "dockage channels close --all",
        "dockage channels close --all --wait 0 -y",
    )
)
@click.argument("channel", required=False, shell_complete=complete.of(complete.channels))
@click.option("--all", "everything", is_flag=True, help="Every channel that no lease uses.")
@click.option(
    "--wait",
    "seconds",
    type=click.IntRange(0),
    default=closing.WAIT_SEC,
    show_default=True,
    metavar="SECONDS",
    help="How long the signatures are waited for; the close goes on in any case.",
)
@yes_option
@json_option
@click.pass_obj
def close(session: Session, channel: str | None, everything: bool, seconds: int, yes: bool) -> None:
    """Close a channel: what was paid goes to the provider, the rest back to the tenant, on the chain.

    It returns once the close is signed, by both or by the provider alone, or says what is waited for. Ctrl-C ends the
    waiting and not the close.
    """
    if (channel is None) != everything:
        raise click.UsageError("name one channel, or say --all")
    open_ = [c for c in session.client.get("channels")["channels"] if c["state"] not in OVER]
    chosen = [c for c in open_ if everything or str(c["channel"]).startswith((channel or "").lower())]
    if channel and len(chosen) != 1:
        raise UsageError(
            "channel.not-found", f"{len(chosen)} open channels begin with {channel!r}; see `dockage channels`"
        )
    if not chosen:
        session.show({"closed": [], "failed": []}, "no channel is open")
        return
    _close(session, chosen, seconds, yes=yes)


def _close(session: Session, chosen: list[Json], seconds: int, *, yes: bool) -> None:
    fees = sum(c["overhead_sat_now"] for c in chosen)
    session.confirm(
        f"Close {show.plural(len(chosen), 'channel')}? Opening and closing costs about {show.whole_sat(fees)} in all.",
        yes=yes,
    )
    asked, failed = _ask(session, chosen)
    closed = [row | {"outcome": closing.outcome(row)} for row in closing.wait(session, asked, seconds)]
    lines = [closing.sentence(row) for row in closed]
    lines += [f"not closed: {show.short(c['channel'])}: {c['message']} ({c['code']})" for c in failed]
    session.show({"closed": closed, "failed": failed}, "\n".join(lines))
    if failed:
        raise click.exceptions.Exit(1)


def _ask(session: Session, chosen: list[Json]) -> tuple[list[Json], list[Json]]:
    """What is being closed, and what is not and why. Raises the first refusal if nothing is."""
    asked: list[Json] = []
    failed: list[Json] = []
    first: DockageError | None = None
    for one in chosen:
        try:
            asked.append(session.client.post("channels", one["channel"], "close"))
        except DockageError as error:
            first = first or error
            failed.append({"channel": one["channel"], "code": error.code, "message": error.message})
    if first is not None and not asked:
        raise first
    return asked, failed


@command.command(examples=("dockage channels backup > channels.txt",))
@json_option
@click.pass_obj
def backup(session: Session) -> None:
    """Print one line a channel with which stock bitcoin software refunds it after its expiry.

    The lines contain private keys: whoever has them can take the refund.
    """
    answer = session.client.get("channels", "backup")
    lines = [
        f"{c['descriptor']}  # {c['outpoint']}, from block {c['expiry_height']} on, {answer['network']}"
        for c in answer["channels"]
    ]
    session.say("Private keys: keep these lines like money." if lines else "no funded channel to back up")
    session.show(answer, "\n".join(lines))
