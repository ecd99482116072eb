"""``dockage why``: what became of a lease, a deployment or a channel; or why nothing on the market fits."""

from __future__ import annotations

from http.client import HTTPException
from typing import Any

import click

from dockage.cli import complete, kept
from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.commands.channels import listing as channel_listing
from dockage.cli.commands.daemon import relay
from dockage.cli.containers import ask
from dockage.cli.errors import UsageError
from dockage.cli.leases import end, why
from dockage.cli.options import Command, json_option, need, need_options
from dockage.cli.session import Session
from dockage.cli.table import facts
from dockage.domain.resources import Resources


@click.command(
    cls=Command,
    examples=(
        "dockage why shop                      # a deployment, a lease or a channel",
        "dockage why relay                     # why nobody behind another NAT reaches this node",
        "dockage why --cpus 8 --region eu      # why nothing fits that",
    ),
)
@click.argument(
    "what",
    required=False,
    shell_complete=complete.of(complete.leases, complete.channels, complete.containers),
)
@need_options
@json_option
@click.pass_obj
def command(session: Session, /, what: str | None, **size: Any) -> None:
    """Explain what became of WHAT: a deployment, a container, or the first digits of a lease or a channel.

    Without WHAT: what on the market stands in the way of a deployment of the size given.
    """
    if what is None:
        answer = session.client.post("market", body=need(**size))
        session.show(answer, fits(answer))
        return
    answer = _asked(session, what)
    session.show(answer, story(answer))


def _asked(session: Session, what: str) -> Json:
    try:
        return session.client.get("why", what)
    except UsageError as error:
        lease = _lease_of(session, what) if error.code == "control.not-found" else ""
        if not lease:
            raise
        return session.client.get("why", lease)


def _lease_of(session: Session, container: str) -> str:
    """The lease that holds the container of that name or id; "" if there is none."""
    tenant = session.client.get("status")["tenant"]
    try:
        listed = ask(tenant["socket"], "/containers/json?all=1") if tenant else []
    except (OSError, ValueError, HTTPException):
        return ""
    named = [x for x in listed if f"/{container}" in x["Names"] or x["Id"].startswith(container)]
    return str(named[0]["Labels"].get("dockage.lease", "")) if len(named) == 1 else ""


def fits(answer: Json) -> str:
    if answer["why"]:
        return str(answer["why"])
    best = min(
        (offer for offer in answer["offers"] if not offer["obstacles"]),
        key=lambda offer: (offer["msat_hour_max"], offer["provider"]),
    )
    price = f"for {show.hourly(best['msat_hour_max'])} at most" if best["msat_hour_max"] else "for nothing"
    count = sum(not offer["obstacles"] for offer in answer["offers"])
    return (
        f"nothing stands in the way: {count} of {show.plural(len(answer['offers']), 'offer')} fit, "
        f"the cheapest is {show.short(best['provider'])} {price}"
    )


def story(answer: Json) -> str:
    parts = [f"{kept.listing([of])}\n{kept.story(of)}" for of in answer["kept"]]
    parts += [_lease(lease) for lease in answer["leases"]]
    if said := relay(answer.get("paid_relay")):
        parts.append(facts([("relay", said)]))
    if answer["channels"]:
        parts.append(channel_listing(answer["channels"]))
    return "\n\n".join(parts)


def _looks(checks: Json) -> str:
    """What our own looks into the lease showed."""
    if not checks["looks"]:
        return ""
    speed = f", {checks['speed']} hashes per core-ms" if checks["speed"] else ""
    unsure = f", the last {checks['unchecked']} could compare nothing" if checks["unchecked"] else ""
    return f"{checks['looks']}, costing {show.cpu_time(checks['cost_ns'])}{speed}{unsure}"


def _lease(lease: Json) -> str:
    refused = [(f"refused by {show.short(r['provider'])}", why(r)) for r in lease["refusals"]]
    return facts(
        [
            ("lease", lease["lease"]),
            ("deployment", lease["deployment"]),
            ("provider", lease["provider"]),
            ("state", f"{lease['state']} after {show.duration(lease['running_sec'])}"),
            ("limits", show.limits(Resources(**lease["limits"]))),
            ("why", why(lease["reason"]) if lease["reason"] else ""),
            ("not paid", why(lease["dispute"]) if lease["dispute"] else ""),
            ("ends", end(lease["ending"]) if lease["ending"] else ""),
            ("warning", why(lease["warning"]) if lease["warning"] else ""),
            *[("found", why(breach)) for breach in lease["breaches"]],
            ("looks", _looks(lease["checks"])),
            *refused,
            ("silent for", show.duration(lease["silent_sec"]) if lease["silent_sec"] else ""),
            ("due", show.sat(lease["due_msat"])),
        ]
    )
