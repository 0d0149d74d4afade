"""Reading a Compose file: every check in its order, and what is known of a file that passed.

Called by operations for each deploy. The bytes are kept exactly as they came, for they are what the agent
gets; what is checked is the same bytes' text.
"""

import codecs
import hashlib
from dataclasses import dataclass
from typing import Any

from control_plane.core.compose.document import Document
from control_plane.core.compose.encoding import MAX_COMPOSE_BYTES, too_large
from control_plane.core.compose.inline import inline_warnings
from control_plane.core.compose.interpolation import BadInterpolationError, expand
from control_plane.core.compose.lone_file import lone_file_warnings
from control_plane.core.compose.meaning import meaning_problems
from control_plane.core.compose.names import folded_name
from control_plane.core.compose.problems import MAX_WARNINGS, invalid, problem
from control_plane.core.compose.reader import read_document
from control_plane.core.compose.schema import schema_problems
from control_plane.core.compose.variables import read_variables
from control_plane.core.errors import FieldProblem, InvalidComposeFileError


@dataclass(frozen=True)
class ComposeFile:
    """A Compose file that passed every check."""

    sha256: str
    """Hexadecimal, of `source`."""
    source: bytes
    warnings: tuple[str, ...]
    """Sentences about what will probably not work on the agent's host, each naming its path."""


def read_compose(source: bytes, project_name: str) -> ComposeFile:
    """Return the Compose file in `source`, checked for deployment as `project_name`.

    Raises TooLargeError over MAX_COMPOSE_BYTES, InvalidComposeFileError naming up to ten problems with
    path, line and column. Takes well under a millisecond for a usual file, under 300 for the worst.
    """
    if len(source) > MAX_COMPOSE_BYTES:
        raise too_large()
    text = _text_of(source)
    document = read_document(text)
    _check_outline(document)
    variable_problems, variable_warnings = read_variables(document) if "$" in text else ([], [])
    problems = [*variable_problems, *_name_problems(document, project_name), *schema_problems(document)]
    # What things mean is only asked of a file in which each thing has its right form.
    problems = problems or meaning_problems(document)
    if problems:
        raise invalid(problems)
    root: dict[str, Any] = document.root
    warnings = dict.fromkeys([*lone_file_warnings(root), *inline_warnings(root), *variable_warnings])
    return passed_file(source, tuple(warnings)[:MAX_WARNINGS])


def passed_file(source: bytes, warnings: tuple[str, ...] = ()) -> ComposeFile:
    """Return the file of which `read_compose`, here or in another process, had no more to say than `warnings`."""
    return ComposeFile(hashlib.sha256(source).hexdigest(), source, warnings)


def _text_of(source: bytes) -> str:
    if source.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise invalid([problem((), "is in UTF-16: save it as UTF-8", None)])
    try:
        return source.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        column = error.start - source.rfind(b"\n", 0, error.start)
        raise invalid([problem((), "is not UTF-8: save it as UTF-8", (line, column))]) from None


def _check_outline(document: Document) -> None:
    """Refuse what has not even the outline of a Compose file, with one plain sentence instead of many."""
    root = document.root
    if root is None:
        raise invalid([problem((), "is empty: it needs `services`", None)])
    if not isinstance(root, dict):
        raise invalid([problem((), "must be a mapping with `services` at its top level", (1, 1))])
    services = root.get("services")
    if services is None and "services" in root:
        raise _outline_problem(document, "is empty: it needs at least one service")
    if services == {} and not root.get("include"):
        raise _outline_problem(document, "is empty: it needs at least one service")
    if services is None and not root.get("include"):
        raise invalid([problem((), "has no `services`: add at least one service", (1, 1))])


def _outline_problem(document: Document, reason: str) -> InvalidComposeFileError:
    return invalid([problem(("services",), reason, document.position(("services",)))])


def _name_problems(document: Document, project_name: str) -> list[FieldProblem]:
    """Return the problem of a top-level `name:` that would make Compose run another project than asked for."""
    name = document.root.get("name")
    if type(name) is not str:
        return []
    wanted = folded_name(project_name)
    try:
        written = expand(name, {"COMPOSE_PROJECT_NAME": wanted}).text
    except BadInterpolationError:
        return []
    if not written or folded_name(written) == wanted:
        return []
    reason = f"must be the project's own name: write `{wanted}`, or remove `name`"
    return [problem(("name",), reason, document.position(("name",)))]
