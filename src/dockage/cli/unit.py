"""The text of a systemd unit that runs the node of one home, and starts it anew when it crashes or hangs.

Counterpart: ``daemon/supervised.py``, which tells systemd that the node is up and alive. The rule: how the node runs is
in its config.toml and nowhere here, so a changed setting or an upgrade needs no new unit.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .errors import UsageError

HOME = "# home: "
_UNIT = """\
# Made by `dockage service install`, which overwrites it. Changes of your own: `systemctl edit`.
{mark}

[Unit]
Description=dockage, the node at {title}
{order}# What is wrong for good ends with 1 or 2 and stays down; anything else is tried again for as long as it takes.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=1 2
TimeoutStartSec=300
# Silent for so long, it hangs.
WatchdogSec=90
# Containers are Docker's and run on; the node has to put its books in order.
TimeoutStopSec=60
KillMode=mixed
LimitNOFILE={files}
# Keys would be in it.
LimitCORE=0
{protection}
[Install]
WantedBy={target}
"""
_SYSTEM_ORDER = """\
Wants=network-online.target
After=network-online.target docker.service
"""
_BOTH = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
"""
_SYSTEM = f"""\
OOMScoreAdjust=-500
# Nothing that gives the node mounts of its own (ProtectSystem=, PrivateTmp=, ...): Docker must see the disks of leases
# that it mounts. It also makes cgroups, networks and firewall rules.
{_BOTH}ProtectHostname=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_TIME CAP_SYS_RAWIO CAP_SYS_PACCT CAP_WAKE_ALARM CAP_AUDIT_CONTROL
CapabilityBoundingSet=~CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_SYSLOG
"""


def text(home: Path, python: str, *, system: bool) -> str:
    """Raises UsageError("service.home") where systemd could not be told the path."""
    if not str(home).isprintable():
        raise UsageError("service.home", f"{str(home)!r} cannot be written into a unit: use a plainer --home")
    return _UNIT.format(
        mark=f"{HOME}{home}",
        title=_literal(str(home)),
        order=_SYSTEM_ORDER if system else "",
        command=" ".join(_word(each) for each in command(home, python)),
        files=524_288 if system else 65_536,
        protection=_SYSTEM if system else _BOTH,
        target="multi-user.target" if system else "default.target",
    )


def home_of(written: str) -> str:
    """Whose unit that is; "" if we did not write it."""
    return next((line.removeprefix(HOME) for line in written.splitlines() if line.startswith(HOME)), "")


def name_for(home: Path) -> str:
    """``dockage`` for the usual home, else with the folder's name, as far as a unit may be called so."""
    plain = "".join(x if x.isascii() and (x.isalnum() or x in "_-") else "-" for x in home.name).strip("-")
    return "dockage" if plain in ("dockage", "") else f"dockage-{plain}"


def command(home: Path, python: str) -> Sequence[str]:
    """``-P``: a folder ``dockage`` where we happen to be started is not the program."""
    return (python, "-P", "-m", "dockage.cli.main", "--home", str(home), "daemon")


def crontab(home: Path, python: str) -> str:
    """The same for machines without systemd: a line of root's crontab. A % would be a line's end there."""
    return f"@reboot {shlex.join([*command(home, python), '--detach'])}".replace("%", "\\%")


def _word(word: str) -> str:
    """One word of a command line (systemd.service(5))."""
    quoted = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{_literal(quoted)}"' if set(word) & set(" '\"\\;$") else _literal(quoted)


def _literal(text: str) -> str:
    """A % would be a specifier (systemd.unit(5))."""
    return text.replace("%", "%%")
