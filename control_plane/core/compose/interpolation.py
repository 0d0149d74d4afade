"""Compose's `${VAR:-default}` in values: what each needs, and what it becomes where nothing is set.

Called by the checks, which never know the host's environment. The syntax is Compose's own: only a `${`
that does not close properly is an error, and a `$` before anything else stands for itself.
"""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r"\$\$|\$\{|\}|\n|\$(?P<name>[A-Za-z_][A-Za-z0-9_]*)")
_BRACED = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<operator>:?[-+?]|(?=\}))")
_MAX_NESTING = 16

SET_BY_COMPOSE = frozenset({"COMPOSE_PROJECT_NAME"})


class BadInterpolationError(ValueError):
    """A `${` is not followed by a name, an operator that Compose knows, and `}`."""


@dataclass(slots=True)
class Expansion:
    """A text with its variables unset and their defaults put in."""

    text: str = ""
    unset: list[str] = field(default_factory=list)
    """Variables that have no default, in order: Compose puts an empty text in their place."""
    required: list[str] = field(default_factory=list)
    """Variables written `${VAR:?message}`: without them Compose refuses the file."""


def is_interpolated(value: object) -> bool:
    """Whether Compose puts the value of some variable into `value`."""
    if type(value) is not str or "$" not in value:
        return False
    return any(token[0] not in ("$$", "}", "\n") for token in _TOKEN.finditer(value))


def expand(text: str, known: dict[str, str] | None = None) -> Expansion:
    """Return `text` as Compose reads it where only the variables in `known` are set.

    Raises BadInterpolationError where Compose would refuse the text.
    """
    expansion = Expansion()
    expansion.text = _Expander(text, known or {}, expansion).until_end()
    return expansion


class _Expander:
    """One pass from left to right; what is inside of `${…}` is read by recursion, bounded in depth."""

    def __init__(self, text: str, known: dict[str, str], expansion: Expansion) -> None:
        self.text = text
        self.known = known
        self.expansion = expansion
        self.at = 0

    def until_end(self) -> str:
        return self._read(0, used=True)

    def _read(self, depth: int, *, used: bool) -> str:
        parts = []
        while match := _TOKEN.search(self.text, self.at):
            parts.append(self.text[self.at : match.start()])
            self.at = match.end()
            sign = match[0]
            if sign == "${":
                parts.append(self._braced(depth + 1, used=used))
            elif sign == "}" and depth:
                return "".join(parts)
            elif sign == "\n" and depth:
                raise BadInterpolationError
            elif match["name"]:
                parts.append(self._value(match["name"], used=used))
            else:
                parts.append("$" if sign == "$$" else sign)
        if depth:
            raise BadInterpolationError
        parts.append(self.text[self.at :])
        self.at = len(self.text)
        return "".join(parts)

    def _braced(self, depth: int, *, used: bool) -> str:
        match = _BRACED.match(self.text, self.at)
        if depth > _MAX_NESTING or (used and match is None):
            raise BadInterpolationError
        if match is None:
            self._read(depth, used=False)
            return ""
        self.at = match.end()
        name, operator = match["name"], match["operator"][-1:]
        if operator == "-":
            default = self._read(depth, used=used and name not in self.known)
            return self.known.get(name, default)
        rest = self._read(depth, used=used and operator == "+" and name in self.known)
        if operator == "+":
            return rest if name in self.known else ""
        return self._value(name, used=used, required=operator == "?")

    def _value(self, name: str, *, used: bool, required: bool = False) -> str:
        if used and name not in self.known and name not in SET_BY_COMPOSE:
            (self.expansion.required if required else self.expansion.unset).append(name)
        return self.known.get(name, "")
