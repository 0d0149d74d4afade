"""The parts of a large document that fail validation, cut down so that what fails in them can be listed.

Called by `schema`. The validator lists every error at once, with copies of what failed: a hostile file
would make it work for seconds. Telling only valid from not is a thousand times cheaper, so the first few
failing parts are found that way. A part is a document of its own in which every path is as in the whole.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

_MAX_PARTS = 10
_MAX_ENTRIES = 20
"""Entries left in a mapping or list of a part, counted from the first up to the first that fails."""

Valid = Callable[[Any], bool]


def failing_parts(root: dict[str, Any], is_valid: Valid) -> list[dict[str, Any]]:
    """Return up to ten parts of `root` that are not valid, in the document's order."""
    return list(islice(_parts(root, is_valid), _MAX_PARTS))


def _parts(root: dict[str, Any], is_valid: Valid) -> Iterator[dict[str, Any]]:
    for section, entries in root.items():
        if is_valid({section: entries}):
            continue
        if type(entries) is not dict:
            yield _cut_part((section,), entries, is_valid)
            continue
        for name, entry in entries.items():
            if is_valid({section: {name: entry}}):
                continue
            # Only a service may be taken apart: other entries have keys that require each other.
            if section != "services" or type(entry) is not dict:
                yield _cut_part((section, name), entry, is_valid)
                continue
            for key, value in entry.items():
                if not is_valid({section: {name: {key: value}}}):
                    yield _cut_part((section, name, key), value, is_valid)


def _cut_part(path: tuple[str, ...], value: Any, is_valid: Valid) -> dict[str, Any]:
    def wrapped(inner: Any) -> Any:
        for key in reversed(path):
            inner = {key: inner}
        return inner

    part: dict[str, Any] = wrapped(_cut(value, lambda cut: not is_valid(wrapped(cut))))
    return part


def _cut(value: Any, fails: Callable[[Any], bool]) -> Any:
    """Return `value` with its mappings and lists cut after the first entry with which it `fails`."""
    if type(value) not in (dict, list) or not value:
        return value
    keep = max(_MAX_ENTRIES, 1 + bisect_left(range(1, len(value)), True, key=lambda n: fails(_first(value, n))))
    cut = _first(value, keep) if len(value) > keep else value.copy()
    keys = list(cut) if type(cut) is dict else range(len(cut))
    # Of a long one, only the entries around the end are looked into: the one that fails is the last.
    for key in keys if len(keys) <= _MAX_ENTRIES else keys[-1:]:
        whole = cut[key]

        def fails_with(entry: Any, key: Any = key) -> bool:
            cut[key] = entry
            return fails(cut)

        cut[key] = _cut(whole, fails_with)
    return cut


def _first(value: Any, count: int) -> Any:
    return dict(islice(value.items(), count)) if type(value) is dict else value[:count]
