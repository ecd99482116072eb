"""How a command ends when it does not succeed: exit codes, and what stands on stderr.

The codes are stable (docs/reference/cli.md). The rule: one line ``error: message (code)``, or with ``--json`` one
object ``{"code", "message"}``; never a trace for what the user or a peer can do something about.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Callable

import click

from dockage.domain.errors import DockageError, Unavailable, UsageError

OK = 0
USER = 1
"""The user can mend it; the message says how."""
USAGE = 2
"""The command line itself is wrong."""
NOT_RUNNING = 3
"""No daemon runs at this home."""
UNAVAILABLE = 4
"""A part that is needed (engine, market, chain, peer) does not answer now."""
BUG = 70
"""A fault of ours, with its trace (EX_SOFTWARE of sysexits.h). Not python's 1, which would be the user's fault."""
INTERRUPTED = 130
PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)
"""Of a file's errors those that a service should try again after: the machine is full, or ill."""


class NotRunning(DockageError):
    """No daemon runs at this home."""


def declined() -> UsageError:
    return UsageError("cli.declined", "not confirmed: nothing was done")


def code_of(error: DockageError) -> int:
    match error:
        case NotRunning():
            return NOT_RUNNING
        case UsageError():
            return USER
        case _:
            return UNAVAILABLE


def guarded(run: Callable[[], object], *, as_json: bool) -> int:
    """Run a command line to its exit code. What is not foreseen here is a bug and shows its trace."""
    try:
        code = run()
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except DockageError as error:
        return _say(error.code, error.message, code_of(error), as_json=as_json)
    except click.UsageError as error:
        if error.ctx is not None and not as_json:
            click.echo(error.ctx.get_usage(), err=True)
        return _say("cli.usage", error.format_message(), USAGE, as_json=as_json)
    except click.ClickException as error:
        return _say("cli.failed", error.format_message(), USER, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        return _say("cli.interrupted", "interrupted", INTERRUPTED, as_json=as_json)
    except BrokenPipeError:  # whoever reads has seen enough
        discard_output()
        return OK
    except Exception as error:
        if isinstance(error, OSError) and (error.filename is not None or error.errno in PASSING):
            return _say_os(error, as_json=as_json)
        traceback.print_exc()
        return BUG


def _say_os(error: OSError, *, as_json: bool) -> int:
    if error.filename is None:  # of what we have open: the answer's own file
        discard_output()
    what = f"{error.filename or 'cannot write'}: {error.strerror}"
    return _say("cli.file", what, UNAVAILABLE if error.errno in PASSING else USER, as_json=as_json)


def discard_output() -> None:
    """Or Python would try once more at its end, and say so."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(code: str, message: str, status: int, *, as_json: bool) -> int:
    text = json.dumps({"code": code, "message": message}) if as_json else f"error: {message} ({code})"
    click.echo(text, err=True)
    return status


__all__ = ["NotRunning", "Unavailable", "UsageError", "code_of", "declined", "guarded"]
