"""What is wrong with a Compose file: paths as users write them, and the one error that carries the problems.

Used by every check of this package. At most MAX_PROBLEMS are told, in the file's order, and no text
here ever carries a value of the file, for values are where secrets are.
"""

import re
from collections.abc import Iterable, Sequence

from control_plane.core.errors import FieldProblem, InvalidComposeFileError
from control_plane.core.text import clean_header

MAX_PROBLEMS = 10
MAX_WARNINGS = 50

Path = tuple[str | int, ...]

WHOLE_FILE = "compose_file"
"""The `field` of a problem that is not at any one place."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MAX_KEY_LENGTH = 60
_MAX_PATH_LENGTH = 200


def format_path(path: Sequence[str | int]) -> str:
    """Return `services.web.ports[0]` for its parts; keys with other characters are quoted in brackets."""
    if not path:
        return WHOLE_FILE
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part) and len(part) <= _MAX_KEY_LENGTH:
            text += f".{part}" if text else part
        else:
            text += f'["{shown(part)}"]'
    return text if len(text) <= _MAX_PATH_LENGTH else f"{text[:_MAX_PATH_LENGTH]}…"


def shown(key: str) -> str:
    """Return a key of the file as it may be shown: on one line, without control characters, cut when long."""
    clean = clean_header(key, _MAX_KEY_LENGTH + 1)
    return clean if len(clean) <= _MAX_KEY_LENGTH else f"{clean[:_MAX_KEY_LENGTH]}…"


def problem(path: Sequence[str | int], reason: str, position: tuple[int, int] | None) -> FieldProblem:
    """Return one problem; `position` is the 1-based line and column, where known."""
    line, column = position or (None, None)
    return FieldProblem(format_path(path), reason, line, column)


def invalid(problems: Iterable[FieldProblem]) -> InvalidComposeFileError:
    """Return the error for these problems (at least one), first in the file first."""
    ordered = sorted(dict.fromkeys(problems), key=lambda found: (found.line or 0, found.column or 0))
    first = ordered[0]
    where = f" (line {first.line}, column {first.column})" if first.line else ""
    rest = len(ordered) - 1
    more = f"; and {rest} more problem{'s' if rest > 1 else ''}" if rest else ""
    return InvalidComposeFileError(f"{first.field}: {first.reason}{where}{more}", ordered[:MAX_PROBLEMS])
