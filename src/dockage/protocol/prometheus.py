"""The text that Prometheus scrapes (exposition format 0.0.4): families of samples to bytes.

Counterpart: ``daemon/metrics.py``, which knows what is measured. The one rule: a family is written once, with its
samples together, or a scraper takes none of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


Kind = Literal["counter", "gauge"]


class Sample(NamedTuple):
    value: int | float
    labels: Mapping[str, str] = {}


class Family(NamedTuple):
    """*name* carries its unit; a counter's ends in ``_total``. *help* is one sentence."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]


def render(families: Iterable[Family]) -> bytes:
    """Families without a sample are left out."""
    return "".join(_family(one) for one in families if one.samples).encode()


def _family(of: Family) -> str:
    assert _NAME.fullmatch(of.name), of.name
    head = f"# HELP {of.name} {of.help.translate(_HELP_ESCAPES)}\n# TYPE {of.name} {of.kind}\n"
    return head + "".join(f"{of.name}{_labels(x.labels)} {x.value}\n" for x in of.samples)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()) + "}"
