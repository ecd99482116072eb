"""What commands share: the class that knows examples, ``--json``, and parameters with units."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .session import Session

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
if TYPE_CHECKING:
    _Whole = click.ParamType[int]
else:
    _Whole = click.ParamType  # generic for type checkers only, in the oldest click we take
_NOTICE = re.compile(r"(\d{1,8})\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class Command(click.Command):
    """With *examples*, which ``--help`` and the reference show."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


class Group(click.Group):
    """A command with subcommands; by itself it does the most usual of them."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    if not examples:
        return
    with formatter.section("Examples"):
        for line in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def json_option(function: F) -> F:
    """Adds ``--json``; the session knows of it."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        session = ctx.find_object(Session)
        if session is not None and value:
            session.json = True

    return click.option(
        "--json", is_flag=True, expose_value=False, is_eager=True, callback=remember, help="Print JSON."
    )(function)


def watch_option(function: F) -> F:
    return click.option("-w", "--watch", is_flag=True, help="Keep showing it, until Ctrl-C.")(function)


def yes_option(function: F) -> F:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


class SizeType(_Whole):
    """``512M``, ``1.5GiB``, ``1073741824``: bytes, in powers of 1024 as docker counts them."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a size: 512M or 1.5G is", param, ctx)
        return int(Decimal(match[1]) * 1024 ** _POWERS[match[2].lower()])


class NoticeType(_Whole):
    """``90s``, ``30m``, ``1h``, ``2d``, ``0``: seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = _NOTICE.fullmatch(str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is not a time: 30m, 1h or 2d is", param, ctx)
        return int(found[1]) * _SECONDS[found[2]]


class PercentType(_Whole):
    """``50%`` or ``50``."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        digits = str(value).strip().removesuffix("%").strip()
        if not (digits.isdecimal() and 1 <= int(digits) <= 100):
            self.fail(f"{value!r} is not a share: 50% is", param, ctx)
        return int(digits)


class CoresType(_Whole):
    """``0.5``: thousandths of a core."""

    name = "cores"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            milli = Decimal(str(value)) * 1000
        except InvalidOperation:
            milli = Decimal(-1)
        if not (milli.is_finite() and 0 < milli <= 1_000_000):
            self.fail(f"{value!r} is not a number of cores: 0.5 or 2 is", param, ctx)
        return max(1, int(milli))


class ScaleType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """``worker=3``: a service and a number of containers."""

    name = "service=number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return str(value[0]), int(value[1])
        service, equals, number = str(value).partition("=")
        if not (service and equals and number.isdecimal() and int(number) <= 1000):
            self.fail(f"{value!r} is not a scale: worker=3 is", param, ctx)
        return service, int(number)


SIZE = SizeType()
CORES = CoresType()
NOTICE = NoticeType()
PERCENT = PercentType()


def need_options(function: F) -> F:
    """``--cpus --memory --disk --region --max-price --opacity --isolation``: what a deployment needs."""
    for option in (
        click.option("--isolation", type=click.Choice(["container", "gvisor", "vm"]), help="At least this."),
        click.option(
            "--opacity", type=click.Choice(["open", "sealed", "confidential"]), help="At least this."
        ),
        click.option(
            "--max-price", type=click.IntRange(0), metavar="SAT", help="Worst case per hour, at most."
        ),
        click.option("--region", help="Only providers of this region."),
        click.option("--disk", type=SIZE, default="1G", show_default=True, help="Disk."),
        click.option("--memory", type=SIZE, default="512M", show_default=True, help="Memory."),
        click.option("--cpus", type=CORES, default="1", show_default=True, help="Cores."),
    ):
        function = option(function)
    return function


def need(
    cpus: int,
    memory: int,
    disk: int,
    region: str | None,
    max_price: int | None,
    opacity: str | None,
    isolation: str | None,
) -> dict[str, Any]:
    """The body of ``POST /v1/market`` and ``/v1/quote``."""
    wishes = {"region": region, "max-price": max_price, "opacity": opacity, "isolation": isolation}
    return {
        "cpu_milli": cpus,
        "memory_bytes": memory,
        "disk_bytes": disk,
        "labels": {f"dockage.{name}": str(value) for name, value in wishes.items() if value is not None},
    }
