"""``dockage verify-proof``: does a file prove that a provider contradicted itself? Needs no node and no network."""

from __future__ import annotations

from pathlib import Path

import click

from dockage.cli.options import Command, json_option
from dockage.cli.session import Session
from dockage.cli.table import facts

FILE_MAX = 1 << 20


@click.command(
    cls=Command,
    examples=(
        "dockage verify-proof ~/.dockage/proofs/3f09a2c4d5e6f708-77aa10b2c3d4e5f6-1742.json",
        "dockage verify-proof proof.json --json",
    ),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@click.pass_obj
def command(session: Session, /, file: Path) -> None:
    """Check a proof that a provider signed two things that cannot both be true.

    Your own node writes such files to HOME/proofs. Exit code 0: it is proven. 1: it is not, and why.
    """
    from dockage.daemon.system import verify_proof  # slow, and no other command needs it

    with file.open("rb") as opened:
        data = opened.read(FILE_MAX)
    proven = verify_proof(data)
    answer = {
        "proven": True,
        "provider": proven.provider.hex(),
        "lease": proven.lease.hex(),
        "reason": {"code": proven.reason.code, "text": proven.reason.text},
    }
    session.show(
        answer,
        facts(
            [
                ("proven", f"{proven.reason.text} ({proven.reason.code})"),
                ("signed by", proven.provider.hex()),
                ("lease", proven.lease.hex()),
            ]
        ),
    )
