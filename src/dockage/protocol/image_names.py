"""Names of images in one form: ``app`` is ``app:latest``, ``docker.io/library/app:1`` is ``app:1``.

As the engine's own "familiar" names (distribution reference, normalize.go).
"""

from __future__ import annotations

import re

from dockage.domain.errors import UsageError

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::\d{1,5})?"
_NAME = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*:[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}}")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")
LATEST = "latest"


def familiar(name: str) -> str:
    """With its tag. Raises UsageError("image.name")."""
    plain = name.removeprefix("docker.io/").removeprefix("library/")
    if ":" not in plain.rpartition("/")[2]:
        plain += ":" + LATEST
    if len(plain) > 255 or not _NAME.fullmatch(plain):
        raise UsageError("image.name", f"invalid reference format: {name[:100]!r}")
    return plain


def id_prefix(reference: str) -> str:
    """What an id must begin with (hex), or "" if *reference* can be no id."""
    return reference.removeprefix("sha256:") if _ID.fullmatch(reference) else ""
