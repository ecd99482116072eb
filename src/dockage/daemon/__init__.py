"""A node, put together and run."""

import sys

if "rich" not in sys.modules:
    # structlog takes it in where there is one, for tracebacks that we do not print: 3 MB of a node, 30 ms of a command
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401

    del sys.modules["rich"]
