"""Variables in a Compose file's values: malformed ones are problems, ones without a default are warnings.

Called by `read` for files that have a `$`. The host's environment is not known here, so a variable counts
as unset unless Compose itself sets it.
"""

from collections.abc import Iterator
from typing import Any

from control_plane.core.compose.document import Document
from control_plane.core.compose.interpolation import BadInterpolationError, expand
from control_plane.core.compose.problems import MAX_PROBLEMS, MAX_WARNINGS, Path, format_path, problem, shown
from control_plane.core.errors import FieldProblem

_CONTAINERS = frozenset({dict, list})


def read_variables(document: Document) -> tuple[list[FieldProblem], list[str]]:
    """Return the problems and the warnings about the variables in `document`; one warning a variable."""
    problems: list[FieldProblem] = []
    warnings: dict[str, str] = {}
    for path, text in _texts_with_variables(document.root):
        if len(problems) >= MAX_PROBLEMS or len(warnings) >= MAX_WARNINGS:
            break
        try:
            expansion = expand(text)
        except BadInterpolationError:
            reason = "has a `${` that is no variable: write `${NAME}` or `${NAME:-default}`, or `$$` for a plain `$`"
            problems.append(problem(path, reason, document.position(path)))
            continue
        for name in expansion.required:
            reason = "must be set in the agent's environment, or Compose will refuse the file"
            warnings.setdefault(name, f"{format_path(path)}: `{shown(name)}` {reason}.")
        for name in expansion.unset:
            reason = "has no default; where the agent's environment does not set it, it will be empty"
            warnings.setdefault(name, f"{format_path(path)}: `{shown(name)}` {reason}.")
    return problems, list(warnings.values())


def _texts_with_variables(root: Any) -> Iterator[tuple[Path, str]]:
    """Yield each value with a `$`, in the file's order; what several aliases share is yielded once."""
    seen: set[int] = set()
    waiting: list[tuple[Path, Any]] = [((), root)]
    while waiting:
        path, value = waiting.pop()
        if type(value) is str:
            yield path, value
        elif id(value) not in seen:
            seen.add(id(value))
            entries = value.items() if type(value) is dict else enumerate(value)
            waiting += reversed([((*path, key), entry) for key, entry in entries if _may_have_variables(entry)])


def _may_have_variables(value: Any) -> bool:
    return "$" in value if type(value) is str else type(value) in _CONTAINERS
