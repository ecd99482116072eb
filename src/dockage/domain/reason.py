"""Why something ended, was refused or was paused. Stable codes for programs, a sentence for people."""

from __future__ import annotations

import msgspec
from msgspec.structs import force_setattr

CODE_MAX = 64
TEXT_MAX = 400


class Reason(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    code: str
    """Dotted, lower case, listed in docs/reference/errors.md."""
    text: str
    """One line of what can be printed: a stranger's words end in our user's terminal."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            said = getattr(self, name)
            if not said.isprintable():
                force_setattr(self, name, "".join(x if x.isprintable() else " " for x in said))

    @property
    def is_sane(self) -> bool:
        return len(self.code) <= CODE_MAX and len(self.text) <= TEXT_MAX

    def __str__(self) -> str:
        return f"{self.text} ({self.code})"
