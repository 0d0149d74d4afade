"""Project names: which ones agents take, and what Compose makes of them on a host.

Called wherever a project name enters. A name that passes is safe as a directory name on every host:
it has no separator, no dot, no control character, and is never empty once folded.
"""

import re

from control_plane.core.errors import FieldProblem, InvalidInputError

MAX_NAME_LENGTH = 63
"""A DNS label's length (RFC 1035): Compose puts the name into container and network names."""

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_FOLDED_AWAY = re.compile(r"[^a-z0-9_-]+")


def check_project_name(name: str) -> str:
    """Return `name` if agents take it. Raises InvalidInputError naming `project_name` and the rule broken.

    The alphabet is the installed agents' own; `fullmatch`, because `$` lets a trailing newline pass.
    """
    if not name:
        raise _refused("is empty: give the project a name such as `shop`")
    if len(name) > MAX_NAME_LENGTH:
        raise _refused(f"has {len(name)} characters: use at most {MAX_NAME_LENGTH}")
    if not _NAME.fullmatch(name):
        raise _refused("may have only the letters a-z and A-Z, digits, `_` and `-`")
    if not folded_name(name):
        raise _refused("needs at least one letter or digit")
    return name


def folded_name(name: str) -> str:
    """Return the Compose project name that `name` ends up as: lower-case, without leading `_` and `-`.

    The rule is Compose's own (NormalizeProjectName): what is not in its alphabet is dropped.
    """
    return _FOLDED_AWAY.sub("", name.lower()).lstrip("_-")


def _refused(reason: str) -> InvalidInputError:
    return InvalidInputError(f"project_name {reason}.", [FieldProblem("project_name", reason)])
