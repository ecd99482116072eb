"""Price, cores and memory over time, drawn in the terminal from the rows of a history."""

from __future__ import annotations

import shutil
from collections import defaultdict
from datetime import datetime
from typing import Any

from .client import Json

WIDTH, NARROWEST, HEIGHT = 100, 40, 9
"""Of each of the three."""
TICKS = 5
DAY_SEC = 86_400

Curves = tuple[tuple[str, list[float]], ...]
"""Title and values."""
Points = dict[int, list[int]]
"""Start of a step: msat, core-nanoseconds, memory MiB milliseconds of all leases together."""


def draw(answer: Json, now: int, *, colour: bool) -> str:
    """Gaps are zero; a step that is not over yet counts for the time that has passed of it."""
    points, step = summed(answer), int(answer["step_sec"])
    if not points:
        return "nothing was used in that time"
    times = list(range(min(points), max(points) + step, step))
    spans = [max(1, min(step, now - start)) for start in times]
    none = [0, 0, 0]
    curves: Curves = (
        ("sat an hour", [points.get(t, none)[0] * 3.6 / span for t, span in zip(times, spans, strict=True)]),
        ("cores", [points.get(t, none)[1] / 1e9 / span for t, span in zip(times, spans, strict=True)]),
        ("memory, MiB", [points.get(t, none)[2] / 1e3 / span for t, span in zip(times, spans, strict=True)]),
    )
    return _stacked(curves, times, step, colour=colour)


def summed(answer: Json) -> Points:
    found: Points = defaultdict(lambda: [0, 0, 0])
    for row in answer["rows"]:
        of = found[row["start_sec"]]
        of[0] += row["due_msat"]
        of[1] += row["usage"]["cpu_ns"]
        of[2] += row["usage"]["memory_mib_ms"]
    return dict(found)


def _stacked(curves: Curves, times: list[int], step: int, *, colour: bool) -> str:
    import plotext

    if len(times) == 1:  # one point would be no line
        times, curves = [times[0], times[0] + step], tuple((title, ys * 2) for title, ys in curves)
    plotext.terminal.limit(False, False)  # the size is ours: a pipe has none
    panels = [_panel(plotext.figure, title, times, ys, colour=colour) for title, ys in curves]
    text = "\n".join(str(panel) for panel in panels)
    return text if colour else str(plotext.uncolorize(text))


def _panel(figure: Any, title: str, times: list[int], values: list[float], *, colour: bool) -> Any:
    figure.clear()
    figure.theme("simple" if colour else "colorless")
    figure.plot_size(max(NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, HEIGHT)).columns)), HEIGHT)
    figure.title(title)
    figure.draw(figure.signal(times, values, marker="braille").lines().fillx())
    figure.ruler("y", "left").lim(0, max(values) * 1.05 or 1)
    figure.ruler("x", "lower").ticks(*_ticks(times[0], times[-1]))
    return figure.build()


def _ticks(first: int, last: int) -> tuple[list[int], list[str]]:
    at = sorted({first + (last - first) * n // (TICKS - 1) for n in range(TICKS)})
    form = "%H:%M" if last - first < DAY_SEC else "%d %b"
    return at, [datetime.fromtimestamp(t).astimezone().strftime(form) for t in at]
