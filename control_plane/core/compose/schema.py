"""The Compose specification's own JSON schema, and its findings as sentences.

Called by `read` with a document of bounded size. Compose puts variables in, casts text and drops repeated
list items before it validates, so findings about such values are no problems here.
"""

import difflib
import importlib.resources
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs

from control_plane.core.compose.document import Document
from control_plane.core.compose.interpolation import is_interpolated
from control_plane.core.compose.parts import failing_parts
from control_plane.core.compose.problems import MAX_PROBLEMS, Path, problem, shown
from control_plane.core.compose.scalars import resolve_plain
from control_plane.core.errors import FieldProblem

_MAX_REPORTED = 2 * MAX_PROBLEMS
"""More are not looked for: of a file with more problems, the first ones say enough."""

_SMALL_DOCUMENT = 1000
"""Values in a document up to which the validator may list all it finds: at 40 µs each, under 40 ms."""

_REPEATS_REFUSED = frozenset(
    {"depends_on", "device_cgroup_rules", "extra_hosts", "group_add", "networks", "security_opt", "volumes_from"}
)
"""Lists whose repeated items Compose 5.6 refuses; it drops repeats in the schema's other unique lists."""

_TYPE_NAMES = {
    "string": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false",
    "array": "a list", "object": "a mapping", "null": "empty",
}  # fmt: skip
_SCALAR_TYPES = frozenset({"string", "number", "integer", "boolean"})
_BOOLEAN_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "1", "0", "t", "f"})


def schema_problems(document: Document) -> list[FieldProblem]:
    """Return what the schema finds wrong with `document`; empty when Compose would find nothing."""
    validator = _validator()
    if validator.is_valid(document.root):
        return []
    found: dict[FieldProblem, None] = {}
    small = document.size <= _SMALL_DOCUMENT
    for part in [document.root] if small else failing_parts(document.root, validator.is_valid):
        for finding in validator.iter_errors(part):
            for path, reason in _Finding(document, finding).problems():
                found[problem(path, reason, document.position(path))] = None
                if len(found) >= _MAX_REPORTED:
                    return list(found)
    return list(found)


class _Finding:
    """One error of the validator, and what of it a user must change."""

    def __init__(self, document: Document, error: jsonschema_rs.ValidationError) -> None:
        self.document = document
        self.error = error
        self.path: Path = tuple(error.instance_path)
        self.kind: Any = error.kind
        self.value = document.value(self.path)

    def problems(self) -> Iterator[tuple[Path, str]]:
        name = self.kind.name
        if name in ("oneOf", "anyOf"):
            yield from self._of_alternatives(getattr(self.kind, "context", []))
        elif name in ("additionalProperties", "unevaluatedProperties"):
            yield from self._of_unknown_keys()
        elif name == "type":
            if not _may_become(self.value, self.kind.types):
                yield self.path, _type_reason(self.kind.types, self.value)
        elif is_interpolated(self.value) or (name == "uniqueItems" and not self._repeats_refused()):
            return
        else:
            yield self.path, self._reason(name)

    def _reason(self, name: str) -> str:
        match name:
            case "required":
                return f"lacks `{shown(self.kind.property)}`: add it"
            case "enum":
                return "must be one of " + ", ".join(f"`{option}`" for option in self.kind.options)
            case "pattern":
                return f"must match the pattern `{self.kind.pattern}`"
            case "minimum" | "maximum":
                return f"must be at {'least' if name == 'minimum' else 'most'} {self.kind.limit}"
            case "uniqueItems":
                return "has the same item twice: remove one"
        return "is not what Compose expects here"

    def _repeats_refused(self) -> bool:
        return bool(self.path) and self.path[-1] in _REPEATS_REFUSED

    def _of_alternatives(self, alternatives: list[list[jsonschema_rs.ValidationError]]) -> Iterator[tuple[Path, str]]:
        """Tell the problem of the alternative that the user meant: the one whose type the value has."""
        branches = [[_Finding(self.document, error) for error in branch] for branch in alternatives]
        if not branches:
            return
        meant = [branch for branch in branches if not any(found.wrong_type_at(self.path) for found in branch)]
        if meant:
            for found in max(meant, key=lambda branch: max(len(part.path) for part in branch)):
                yield from found.problems()
            return
        types = [kind for branch in branches for found in branch for kind in found.types_at(self.path)]
        if not _may_become(self.value, types):
            yield self.path, _type_reason(list(dict.fromkeys(types)), self.value)

    def wrong_type_at(self, path: Path) -> bool:
        return bool(self.types_at(path))

    def types_at(self, path: Path) -> list[str]:
        return list(self.kind.types) if self.kind.name == "type" and self.path == path else []

    def _of_unknown_keys(self) -> Iterator[tuple[Path, str]]:
        known = _known_keys(tuple(self.error.schema_path[:-1]))
        for key in self.kind.unexpected:
            # A key that failed its own check counts as unevaluated, too; its own finding tells it.
            if key in known or (isinstance(self.value, dict) and key not in self.value):
                continue
            yield (*self.path, key), self._unknown_key_reason(key, known)

    def _unknown_key_reason(self, key: str, known: frozenset[str]) -> str:
        if not known:
            return "is not a name that Compose takes: use letters, digits, `.`, `_` and `-`"
        close = difflib.get_close_matches(key[:40], known, 1)
        advice = f"did you mean `{close[0]}`?" if close else "remove it, or prefix it with `x-`"
        return f"is not a key that Compose knows here: {advice}"


def _type_reason(types: list[str], value: Any) -> str:
    names = [_TYPE_NAMES.get(kind, kind) for kind in types if kind != "integer" or "number" not in types]
    wanted = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "something else"
    if isinstance(value, (bool, int, float)) and "string" in types:
        return f"must be {wanted}, not {_type_of(value)}: put it in quotes"
    return f"must be {wanted}, not {_type_of(value)}"


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if value is None:
        return "empty"
    return "text" if isinstance(value, str) else "a mapping" if isinstance(value, dict) else "a list"


def _may_become(value: Any, types: list[str]) -> bool:
    """Whether Compose makes a wanted type of a text before it validates; never a mapping or a list."""
    if type(value) is not str:
        return False
    if is_interpolated(value):
        return bool(_SCALAR_TYPES.intersection(types))
    if "boolean" in types and value.lower() in _BOOLEAN_WORDS:
        return True
    number = resolve_plain(value)
    return bool({"integer", "number"} & set(types)) and type(number) in (int, float)


@cache
def _schema() -> dict[str, Any]:
    packaged = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema: dict[str, Any] = json.loads(packaged.read_text(encoding="utf-8"))
    return schema


@cache
def _validator() -> jsonschema_rs.Validator:
    # Two threads that come first together each build one (5 ms) and either may be kept: both are the same.
    return jsonschema_rs.validator_for(_schema())


@cache
def _known_keys(schema_path: tuple[str | int, ...]) -> frozenset[str]:
    """Return the keys that the object schema at this path names, through its `allOf` and `$ref`."""
    node: Any = _schema()
    for part in schema_path:
        node = node[part]
    return frozenset(_named_keys(node))


def _named_keys(node: dict[str, Any]) -> Iterator[str]:
    yield from node.get("properties", ())
    for part in (*node.get("allOf", ()), *([node] if "$ref" in node else ())):
        target: Any = _schema()
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        yield from _named_keys(target)
