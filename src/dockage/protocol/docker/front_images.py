"""Images of our own store in the Engine API's words (ImageInspect, ImageSummary, HistoryResponseItem; v1.44)."""

from __future__ import annotations

import calendar
import fnmatch
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from dockage.protocol.images import Manifest

from . import front_filters as filters
from .front_errors import ApiError

Doc = dict[str, Any]
MISSING = "<missing>"
SIZES = {"SharedSize": -1, "Containers": -1}
"""Not counted: only ``docker system df`` asks for them."""


def inspected(image: Manifest, tags: Sequence[str], digests: Sequence[str] = ()) -> Doc:
    config = document(image)
    shown = {name: config.get(key) or "" for name, key in _COPIED.items()}
    return shown | {
        "Id": image.image,
        "RepoTags": list(tags),
        "RepoDigests": list(digests),
        "Parent": "",
        "Config": config.get("config") or {},
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "dockage", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


_COPIED = {
    "Created": "created",
    "Comment": "comment",
    "Author": "author",
    "Architecture": "architecture",
    "Os": "os",
    "DockerVersion": "docker_version",
}


def listed(image: Manifest, tags: Sequence[str], digests: Sequence[str] = ()) -> Doc:
    config = document(image)
    return {
        "Id": image.image,
        "ParentId": "",
        "RepoTags": list(tags),
        "RepoDigests": list(digests),
        "Created": _seconds(config.get("created")),
        "Size": image.size,
        "VirtualSize": image.size,
        "Labels": (config.get("config") or {}).get("Labels") or {},
        **SIZES,
    }


def history(image: Manifest, tags: Sequence[str]) -> list[Doc]:
    """Newest first; a step without a layer has no size."""
    sizes, steps = iter(image.layers), document(image).get("history")
    found = []
    for step in steps if isinstance(steps, list) else []:
        step = step if isinstance(step, dict) else {}
        layer = None if step.get("empty_layer") else next(sizes, None)
        found.append(
            {
                "Id": MISSING,
                "Created": _seconds(step.get("created")),
                "CreatedBy": str(step.get("created_by") or ""),
                "Tags": None,
                "Size": layer.size if layer else 0,
                "Comment": str(step.get("comment") or ""),
            }
        )
    if found:
        found[-1] |= {"Id": image.image, "Tags": list(tags) or None}
    return found[::-1]


def document(image: Manifest) -> Doc:
    """The config as JSON; it was checked when it came."""
    return msgspec.json.decode(image.config, type=Doc)


def _seconds(text: object) -> int:
    """Of an RFC 3339 time as engines write them, which is UTC; 0 for any other text."""
    found = _TIME.match(str(text))
    return max(0, calendar.timegm((*map(int, found.groups()), 0, 0, 0))) if found else 0


_TIME = re.compile(r"(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T(\d\d):(\d\d):(\d\d)")


# -- filters -------------------------------------------------------------------------------------------
KNOWN = frozenset({"reference", "label", "dangling", "before", "since"})


def filtered(items: Sequence[Doc], wanted: filters.Filters) -> list[Doc]:
    """*items* as ``listed``; of each only the names that were asked for. ``before`` and ``since`` are left to the
    caller, who knows the order."""
    if unknown := wanted.keys() - KNOWN:
        raise ApiError(400, f"invalid filter '{min(unknown)}'")
    dangling = [one in ("1", "true") for one in wanted.get("dangling", ())]
    named = wanted.get("reference", ())
    found = []
    for item in items:
        tags = [tag for tag in item["RepoTags"] if not named or any(_fits(tag, one) for one in named)]
        labels = all(filters.has_label(item["Labels"], one) for one in wanted.get("label", ()))
        nameless = not (item["RepoTags"] or item["RepoDigests"])
        if labels and (tags or not named) and (not dangling or nameless in dangling):
            found.append(item | {"RepoTags": tags})
    return found


def _fits(tag: str, pattern: str) -> bool:
    """``app`` is every tag of app, ``ap*:1*`` a pattern (path.Match, which ends at a slash; close enough)."""
    repository = tag.rpartition(":")[0]
    return any(fnmatch.fnmatchcase(name, pattern[:255]) for name in (tag, repository))
