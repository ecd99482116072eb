"""Plain columns, as ``docker ps`` has them: readable in a terminal, in a pipe and in a bug report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GAP = "  "


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> str:
    """Columns named in *right* are aligned to the right: numbers."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    aligned = [str.rjust if name in right else str.ljust for name in head]
    return "\n".join(
        GAP.join(
            align(cell, width) for align, cell, width in zip(aligned, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """``name  value`` lines, the values under each other."""
    known = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in known), default=0)
    return "\n".join(f"{name.ljust(width)}{GAP}{value}" for name, value in known)
