"""What every command gets: the home, the client, and the one way to print.

The rule: answers go to stdout (a table, or with ``--json`` the very value), everything else to stderr, so that a
pipe only sees answers.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from .client import Client, check_home
from .errors import declined


@dataclass(slots=True)
class Session:
    home: Path
    json: bool = False
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(check_home(self.home))
        return self._client

    def show(self, value: Any, text: str) -> None:
        click.echo(json.dumps(value) if self.json else text)

    def say(self, text: str) -> None:
        """A remark about what is going on."""
        click.echo(text, err=True)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask, unless *yes* or nobody is there to answer. Raises UsageError("cli.declined")."""
        if yes or self.json or not sys.stdin.isatty():
            return
        if not click.confirm(question, err=True):
            raise declined()
