"""A provider's node that lies: the whole of it is real, but for one thing on its machine.

doctored.py double|half [arguments of dockage]: states twice the CPU that was used; gives half of the cores it sold.
"""

from __future__ import annotations

import sys
from typing import Any

from msgspec.structs import replace

from dockage.adapters.host import DockerHost
from dockage.cli.main import main
from dockage.protocol.docker import create


def double() -> None:
    honest = DockerHost.read

    async def read(self: DockerHost, lease: Any) -> Any:
        reading = await honest(self, lease)
        return replace(reading, cpu_ns=2 * reading.cpu_ns)

    DockerHost.read = read  # type: ignore[method-assign]


def half() -> None:
    honest, limited = DockerHost._make_group, create.limited

    async def make(self: DockerHost, lease: Any, limits: Any) -> None:
        await honest(self, lease, replace(limits, cpu_milli=limits.cpu_milli // 2))

    def container(host: Any, limits: Any) -> Any:  # the kernel refuses one of more than its group
        given = limited(host, limits)
        return {**given, "NanoCpus": given["NanoCpus"] // 2}

    DockerHost._make_group = make  # type: ignore[method-assign]
    create.limited = container


if __name__ == "__main__":
    {"double": double, "half": half}[sys.argv.pop(1)]()
    main()
