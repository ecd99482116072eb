"""``dockage up``: ``docker compose up``, with the price first."""

from __future__ import annotations

import time
from typing import Any

import click

from dockage.cli import complete, compose, kept, leases, process, public, reserved
from dockage.cli import format as show
from dockage.cli.client import Json
from dockage.cli.errors import Unavailable, UsageError
from dockage.cli.options import Command, ScaleType, json_option, yes_option
from dockage.cli.session import Session
from dockage.cli.table import facts
from dockage.cli.telling import telling
from dockage.domain.resources import Resources

LIVE = ("running", "paused")
USUAL = "a tenth of its CPU, half its memory"
WAIT_SEC = 120
POLL_SEC = 1.0


@click.command(
    cls=Command,
    examples=(
        "dockage up",
        "dockage up -f compose.yaml -f compose.prod.yaml -p shop -y",
        "dockage up --build web",
        "dockage up --scale worker=3",
    ),
)
@click.argument("services", nargs=-1, shell_complete=complete.services)
@compose.file_options
@click.option("--build", is_flag=True, help="Build the images before.")
@click.option("--scale", type=ScaleType(), multiple=True, help="So many containers of a service.")
@click.option(
    "-d", "--detach", is_flag=True, expose_value=False, help="It always returns once all is up: for habit."
)
@click.option(
    "--wait-timeout",
    type=click.IntRange(0),
    default=WAIT_SEC,
    show_default=True,
    metavar="SECONDS",
    help="How long services may take to be up and healthy.",
)
@yes_option
@json_option
@click.pass_obj
def command(
    session: Session,
    /,
    services: tuple[str, ...],
    build: bool,
    scale: tuple[tuple[str, int], ...],
    wait_timeout: int,
    yes: bool,
    **which: Any,
) -> None:
    """Run a compose project in the market: shows who would run it and what it costs, asks, and brings it up.

    It takes the provider that the quote names unless that one fails meanwhile. Ctrl-C leaves what is up as it is;
    `dockage down` takes it away.
    """
    files = compose.files(**which)
    project = compose.read(files, services, dict(scale))
    socket = tenant_socket(process.ensure(session))
    price = _price(session, project)
    session.say(price.pop("text"))
    if price["grows"]:
        session.confirm("Go ahead?", yes=yes)
    if project.update:
        session.client.post("deployments", project.name, "update", body={"labels": project.update})
    with telling(session, project.name):
        words = ["--build"] if build else []
        words += [word for service, number in scale for word in ("--scale", f"{service}={number}")]
        with reserved.labelled(files, project.reserved) as labelled:
            code = labelled.run("up", "-d", *words, *services, socket=socket, quiet=session.json)
    if code:
        session.say(f"docker compose ended with {code}; {_more(session, project.name)}")
        raise click.exceptions.Exit(130 if code == 130 else 1)
    kept.rolled_out(session, project.name, wait_timeout)
    there = _wait(session, files, socket, wait_timeout)
    urls, outside = compose.urls(there), _public(session, project, wait_timeout)
    answer = {"deployment": project.name, "services": project.services, **price, "urls": urls}
    lines = [f"{u['service']}  {u['url']}" for u in (*outside["urls"], *urls)]
    session.show({**answer, "public": outside["urls"]}, "\n".join(lines) or f"{project.name} is up")


def _more(session: Session, name: str) -> str:
    """Where to look after compose failed: what was never rented has no story."""
    try:
        session.client.get("why", name)
    except UsageError as error:
        if error.code == "control.not-found":
            return "nothing was rented for it"
    return f"`dockage why {name}` may tell more"


def _public(session: Session, project: compose.Project, limit: int) -> Json:
    """What is up stays up where nobody can make it public now: it is said, and tried again."""
    if not project.gateways:
        return public.NOTHING
    of = public.settle(session, project.name, project.public, limit)
    if of["hindrance"]:
        session.say(f"not public as it is to be: {leases.why(of['hindrance'])}")
    elif refused := public.refusals(of):
        for text in refused:
            session.say(text)
    elif not of["urls"]:
        session.say(f"no gateway after {limit} s; `dockage ps` shows how it goes on")
    return of


def tenant_socket(status: Json) -> str:
    if status["tenant"] is None:
        raise UsageError(
            "tenant.off", "this node does not rent: set tenant.enabled = true in its config.toml"
        )
    return str(status["tenant"]["socket"])


# -- the price ---------------------------------------------------------------------------------------
def _price(session: Session, project: compose.Project) -> Json:
    for lease in session.client.get("spend")["leases"]:
        if lease["deployment"] == project.name and lease["state"] in LIVE and lease["service"] == "engine":
            return _held(project, lease)
    quote = session.client.post("quote", body=project.question())
    return {"quote": quote, "lease": None, "grows": True, "text": quoted(project, quote)}


def _held(project: compose.Project, lease: Json) -> Json:
    """It runs: the same lease goes on, enlarged if it must be."""
    from dockage.domain.pricing import Tariff, ceiling
    from dockage.domain.units import HOUR

    limits = Resources(**lease["limits"])
    wanted = limits.covering(project.need)
    tariff = Tariff(**{name.removesuffix("_msat"): value for name, value in lease["tariff"].items()})
    most = ceiling(wanted, tariff, HOUR)
    text = facts(
        [
            ("deployment", _size(project.name, project.services, wanted)),
            ("lease", f"{show.short(lease['lease'])} at {show.short(lease['provider'])}, {lease['state']}"),
            ("price", f"{_worst(most)}; so far {show.hourly(lease['msat_hour_max'])}"),
            (
                "until now",
                f"{show.hourly(leases.average(lease))} on average, {show.sat(lease['due_msat'])} due",
            ),
        ]
    )
    return {"quote": None, "lease": lease["lease"], "grows": wanted != limits, "text": text}


def _copies(quote: Json) -> str:
    """What labels add to the one lease that the rest of the quote is about."""
    replicas, standby = quote["replicas"], quote["standby"]
    if replicas == 1 and not standby:
        return ""
    waits = f", and {standby} standby for {show.hourly(quote['msat_hour_standby'])} at most while it waits"
    return f"{replicas} like this, each at another provider" + (waits if standby else "")


def _gateways(quote: Json) -> str:
    asked, found = quote["gateways"], quote["gateways_found"]
    if not asked:
        return ""
    if found < asked:
        return f"at {asked} gateways, of which {found} can be had now"
    price = quote["msat_hour_gateways"]
    return f"at {show.plural(asked, 'gateway')}, {show.hourly(price) if price else 'free'} and the bytes"


def quoted(project: compose.Project, quote: Json) -> str:
    most, others = quote["msat_hour_max"], quote["alternatives"]
    return facts(
        [
            ("deployment", _size(project.name, project.services, project.need)),
            ("provider", f"{show.short(quote['provider'])} ({show.plural(others, 'other')} would do)"),
            ("where", _levels(quote)),
            ("price", f"{_worst(most)}; you pay for what is used" if most else "free"),
            ("usually", f"{show.hourly(quote['msat_hour_usual'])}: {USUAL}" if most else ""),
            ("copies", _copies(quote)),
            ("public", _gateways(quote)),
            ("channel", _channel(quote)),
        ]
    )


def _levels(quote: Json) -> str:
    """What the provider can see, and what keeps the containers from its machine."""
    return f"{quote['region']}, {quote['architecture']}; opacity {quote['opacity']}, isolation {quote['isolation']}"


def _worst(msat_hour: int) -> str:
    return f"at most {show.hourly(msat_hour)} ({show.monthly(msat_hour)} a month), network aside"


def _size(name: str, services: dict[str, int], need: Resources) -> str:
    return f"{name}: {show.plural(sum(services.values()), 'container')}, {show.limits(need)}"


def _channel(quote: Json) -> str:
    size, fees = quote["channel_sat"], quote["settlement_overhead_sat"]
    if not size:
        return "no new one is needed" if quote["msat_hour_max"] else ""
    return (
        f"a new one of {show.whole_sat(size)}; opening and closing it costs about {show.whole_sat(fees)} "
        f"({100 * fees / size:.1f} %) at {quote['feerate'] / 1000:g} sat/vB, and what is not spent comes back"
    )


# -- until it is up ----------------------------------------------------------------------------------
def _wait(session: Session, files: compose.Files, socket: str, limit: int) -> list[Json]:
    """The containers, once all are up or done. Raises UsageError("deployment.failed") or Unavailable."""
    until, said = time.monotonic() + limit, ""
    while True:
        there = compose.containers(files, socket)
        if failures := compose.failed(there):
            raise UsageError("deployment.failed", f"{'; '.join(failures)}: see `docker compose logs`")
        waiting = ", ".join(compose.pending(there))
        if not waiting:
            return there
        if time.monotonic() >= until:
            raise Unavailable("deployment.slow", f"not up after {limit} s: {waiting}")
        if waiting != said:
            session.say(f"waiting for {waiting}")
            said = waiting
        time.sleep(POLL_SEC)
