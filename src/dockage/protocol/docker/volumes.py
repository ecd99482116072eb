"""Volumes in a create body: three spellings (Binds, Mounts, Volumes), one meaning.

Only named and anonymous volumes exist: a lease has no path of anybody's machine to mount.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .names import is_name
from .refusal import Refused
from .values import inner_path, is_default

BIND_REASON = (
    "a path of your own machine cannot be mounted on a provider's; "
    "use a named volume, put the files into the image, or copy them in with 'docker cp'"
)
OPTIONS = frozenset({"", "rw", "ro", "nocopy", "z", "Z"})
"""z and Z ask for an SELinux label, which is the provider's affair and harmless to ask for."""
MOUNTS_MAX = 64


class VolumeUse(NamedTuple):
    """One volume in one container. An empty *name* asks for an anonymous one."""

    name: str
    target: str
    read_only: bool = False
    no_copy: bool = False


def parse_bind(spec: Any) -> VolumeUse:
    """``name:/target[:options]``. Raises Refused with the reason."""
    if not isinstance(spec, str):
        raise Refused(400, "must be a list of strings")
    name, *rest = spec.split(":")
    if not rest:
        return VolumeUse("", _target(name))
    options = set(rest[1].split(",")) if len(rest) == 2 else set()
    if not is_name(name):
        raise Refused(400, BIND_REASON)
    if len(rest) > 2 or options - OPTIONS:
        raise Refused(400, f"mount options offered are ro, rw and nocopy, not {spec[-60:]!r}")
    return VolumeUse(name, _target(rest[0]), "ro" in options, "nocopy" in options)


def parse_mount(mount: Any) -> VolumeUse | None:
    """An entry of ``Mounts``; None for a tmpfs. Raises Refused with the reason."""
    if not isinstance(mount, dict):
        raise Refused(400, "must be a list of objects")
    kind = mount.get("Type")
    if kind == "bind":
        raise Refused(400, BIND_REASON)
    if kind not in ("volume", "tmpfs"):
        raise Refused(400, f"mounts of type {str(kind)[:40]!r} are not offered; volume and tmpfs are")
    _only(mount, {"Type", "Source", "Target", "ReadOnly", "Consistency", "VolumeOptions", "TmpfsOptions"})
    target, read_only = _target(mount.get("Target")), mount.get("ReadOnly", False) is True
    if kind == "tmpfs":
        if not is_default(mount.get("Source")) or not is_default(mount.get("VolumeOptions")):
            raise Refused(400, "a tmpfs has no source")
        return None
    return VolumeUse(_source(mount.get("Source")), target, read_only, _no_copy(mount.get("VolumeOptions")))


def _source(name: Any) -> str:
    if is_default(name):
        return ""
    if not isinstance(name, str) or not is_name(name):
        raise Refused(400, BIND_REASON)
    return name


def _no_copy(options: Any) -> bool:
    if is_default(options):
        return False
    if not isinstance(options, dict):
        raise Refused(400, "VolumeOptions must be an object")
    _only(options, {"NoCopy", "Labels", "DriverConfig"})
    driver = options.get("DriverConfig")
    if not is_default(driver) and driver not in ({"Name": "local"}, {"Name": "local", "Options": None}):
        raise Refused(400, "volumes have the local driver without options")
    return options.get("NoCopy", False) is True


def _only(given: dict[str, Any], known: set[str]) -> None:
    unknown = [name for name, value in given.items() if name not in known and not is_default(value)]
    if unknown:
        raise Refused(400, f"{unknown[0][:60]} is not offered for mounts")


def _target(path: Any) -> str:
    if reason := inner_path(path):
        raise Refused(400, f"the target {reason}")
    return str(path)


def volume_uses(body: dict[str, Any]) -> tuple[VolumeUse, ...]:
    """All volumes of a create body, each target once (an earlier spelling wins, as in Docker)."""
    host = body.get("HostConfig") or {}
    uses = [parse_bind(spec) for spec in host.get("Binds") or []]
    uses += [use for mount in host.get("Mounts") or [] if (use := parse_mount(mount))]
    uses += [VolumeUse("", _target(path)) for path in body.get("Volumes") or {}]
    by_target: dict[str, VolumeUse] = {}
    for use in uses:
        by_target.setdefault(use.target.rstrip("/"), use)
    if len(by_target) > MOUNTS_MAX:
        raise Refused(400, f"a container has at most {MOUNTS_MAX} volumes")
    return tuple(by_target.values())


def with_declared(uses: tuple[VolumeUse, ...], declared: Any, tmpfs: Any) -> tuple[VolumeUse, ...]:
    """Adds what the image itself declares (VOLUME): the engine would make those on the provider's own disk,
    outside of every limit. Bad paths in an image are refused like a tenant's."""
    taken = {use.target.rstrip("/") for use in uses} | {str(path).rstrip("/") for path in tmpfs}
    paths = [_target(path) for path in declared] if isinstance(declared, dict) else []
    extra = tuple(VolumeUse("", path) for path in paths if path.rstrip("/") not in taken)
    if len(uses) + len(extra) > MOUNTS_MAX:
        raise Refused(400, f"a container has at most {MOUNTS_MAX} volumes")
    return uses + extra


def refusal(parse: Any) -> Any:
    """A parser as a check: its reason, or ``""``."""

    def check(value: Any) -> str:
        try:
            parse(value)
        except Refused as refused:
            return refused.message
        return ""

    return check
