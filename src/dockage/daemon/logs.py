"""How the daemon's log looks: one line for each event, plain tracebacks.

Plain, because the pretty ones take half a second of the event loop each: a peer that found a bug of ours could stop
the node with it.
"""

from __future__ import annotations

import logging
import os
import sys

import structlog


def configure() -> None:
    """By the environment: DOCKAGE_LOG = debug, info (the default), warning or error."""
    level = logging.getLevelNamesMapping().get(os.environ.get("DOCKAGE_LOG", "info").upper(), logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
