"""A Compose file's YAML read once, from the parser's events, into plain values with their positions.

Called by `read`. Bounds are kept while the events come, before anything is composed: PyYAML's composer
overflows the C stack on deep nesting and expands alias bombs. Aliased values are shared, never copied,
but counted each time, so that no later pass over the tree can be made to run long.
"""

import math
from collections.abc import Callable
from typing import Any, Final

from yaml import YAMLError
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from control_plane.core.compose.document import Document, line_column
from control_plane.core.compose.problems import Path, invalid, problem, shown
from control_plane.core.compose.scalars import resolve_plain
from control_plane.core.errors import InvalidComposeFileError

MAX_DEPTH = 64
"""Nesting, aliases followed. Compose's own schema is under 12 deep; extensions may nest."""
MAX_NODES = 50_000
"""Values, keys included and aliases expanded: twice what 256 KiB of ordinary Compose holds."""
_WEIGHT_LENGTH = 64
"""Text counts as one value for each so many characters: aliases of long text must not multiply it."""
MAX_SCALAR_LENGTH = 128 * 1024
"""Characters of one value; `configs.content` may well be a whole file."""
MAX_KEY_LENGTH = 1024
"""YAML's own bound on a plain key (YAML 1.2, section 7.4.2)."""

_CORE = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({"!", _CORE + "str", _CORE + "binary", _CORE + "timestamp"})
_TYPED_TAGS: dict[str, tuple[type, ...]] = {
    _CORE + "int": (int,),
    _CORE + "float": (int, float),
    _CORE + "bool": (bool,),
    _CORE + "null": (type(None),),
}
_RESET, _OVERRIDE = "!reset", "!override"

_NO_KEY: Final = object()
_MERGE: Final = object()
_OPEN: Final = object()


class _Frame:
    """A mapping or list whose end has not come yet."""

    __slots__ = ("anchor", "height", "items", "key", "marks", "merges", "reset", "size", "start", "value")

    def __init__(self, value: Any, anchor: str | None, *, reset: bool, start: Any) -> None:
        self.value = value
        self.items: list[Any] | None = value if type(value) is list else None
        self.marks: Any = {} if type(value) is dict else []
        self.key: Any = _NO_KEY
        self.merges: list[Any] | None = None
        self.size = 1
        self.height = 1
        self.anchor = anchor
        self.reset = reset
        self.start = start


def read_document(text: str) -> Document:
    """Return the one document of `text`. Raises InvalidComposeFileError with the place and the reason."""
    return _Reader().read(text)


class _Reader:
    def __init__(self) -> None:
        self.document = Document()
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int, int]] = {}
        self.nodes = 0
        self.documents = 0

    def read(self, text: str) -> Document:
        handlers: dict[type[Event], Callable[[Any], None]] = {
            ScalarEvent: self._scalar,
            MappingStartEvent: self._open_mapping,
            MappingEndEvent: self._close,
            SequenceStartEvent: self._open_list,
            SequenceEndEvent: self._close,
            AliasEvent: self._alias,
            DocumentStartEvent: self._document,
        }
        try:
            next_event = CParser(text).get_event
            while (event := next_event()) is not None:
                kind = type(event)
                if handle := handlers.get(kind):
                    handle(event)
                elif kind is StreamEndEvent:
                    break
            self.document.size = self.nodes
        except YAMLError as error:
            raise self._not_yaml(error) from None
        return self.document

    def _document(self, event: DocumentStartEvent) -> None:
        self.documents += 1
        if self.documents > 1:
            raise self._bad(event, "holds several YAML documents: put everything into one, without `---`")

    def _scalar(self, event: ScalarEvent) -> None:
        value: Any = event.value
        tag = event.tag
        weight = 1 + len(value) // _WEIGHT_LENGTH
        self.nodes += weight
        if self.nodes > MAX_NODES:
            raise self._too_many(event)
        if weight > 1 and len(value) > MAX_SCALAR_LENGTH:
            raise self._bad(event, f"is longer than {MAX_SCALAR_LENGTH} characters: shorten it")
        if event.implicit[0]:
            value = _MERGE if value == "<<" and self._wants_key() else self._plain(event)
        elif tag is not None and tag not in _TEXT_TAGS:
            value = self._tagged(event)
        if event.anchor:
            self.anchors[event.anchor] = ("<<" if value is _MERGE else value, weight, 0)
        stack = self.stack
        if not stack or tag == _RESET:
            self._put(event, value, weight, reset=tag == _RESET)
            return
        # What `_put` does for a value without inner ones, which nearly all are, without the call.
        frame = stack[-1]
        frame.size += weight
        if frame.items is not None:
            frame.items.append(value)
            frame.marks.append(event.start_mark)
        elif frame.key is _NO_KEY:
            self._start_entry(event, frame, value)
        elif frame.key is _MERGE:
            frame.key, frame.merges = _NO_KEY, [value]
        else:
            frame.value[frame.key] = value
            frame.key = _NO_KEY

    def _plain(self, event: ScalarEvent) -> Any:
        value = resolve_plain(event.value)
        if type(value) is float and not math.isfinite(value):
            raise self._bad(event, "is a number that Compose cannot use: write a finite one or quote it")
        return value

    def _tagged(self, event: ScalarEvent) -> Any:
        tag = event.tag or ""
        if tag in (_RESET, _OVERRIDE):
            return event.value if event.style else self._plain(event)
        if tag not in _TYPED_TAGS:
            raise self._unknown_tag(event, tag)
        value = self._plain(event)
        if not isinstance(value, _TYPED_TAGS[tag]):
            raise self._bad(event, f"is not what its tag `!!{tag.removeprefix(_CORE)}` says: correct one of both")
        return value

    def _open_mapping(self, event: MappingStartEvent) -> None:
        self._open(event, {}, _CORE + "map")

    def _open_list(self, event: SequenceStartEvent) -> None:
        self._open(event, [], _CORE + "seq")

    def _open(self, event: CollectionStartEvent, value: Any, core_tag: str) -> None:
        self._count(event, 1)
        tag = event.tag
        if tag is not None and tag not in ("!", core_tag, _RESET, _OVERRIDE):
            raise self._unknown_tag(event, tag)
        if self._wants_key():
            raise self._bad(event, "has a mapping or a list as a key: write a text key")
        if len(self.stack) >= MAX_DEPTH:
            raise self._too_deep(event)
        if event.anchor:
            self.anchors[event.anchor] = (_OPEN, 0, 0)
        self.stack.append(_Frame(value, event.anchor, reset=tag == _RESET, start=event.start_mark))

    def _close(self, event: Event) -> None:
        frame = self.stack.pop()
        if frame.merges is not None:
            self._merge(event, frame)
        value = frame.value
        self.document.marks[id(value)] = frame.marks
        if frame.anchor:
            self.anchors[frame.anchor] = (value, frame.size, frame.height)
        self._put(event, value, frame.size, frame.height, reset=frame.reset, mark=frame.start)

    def _alias(self, event: AliasEvent) -> None:
        name = event.anchor or ""
        if name not in self.anchors:
            raise self._bad(event, f"refers to the anchor `&{shown(name)}`, which is not defined above it")
        value, size, height = self.anchors[name]
        if value is _OPEN:
            raise self._bad(event, f"refers to the anchor `&{shown(name)}` from within itself")
        self._count(event, size)
        if len(self.stack) + height > MAX_DEPTH:
            raise self._too_deep(event)
        if height and self._wants_key():
            raise self._bad(event, "has a mapping or a list as a key: write a text key")
        self._put(event, value, size, height)

    def _put(
        self, event: Event, value: Any, size: int, height: int = 0, *, reset: bool = False, mark: Any = None
    ) -> None:
        """Give a finished value to the mapping or list around it, as its next key, value or item."""
        if not self.stack:
            self.document.root = None if reset else value
            return
        frame = self.stack[-1]
        frame.size += size
        if height >= frame.height:
            frame.height = height + 1
        if frame.items is not None:
            if not reset:
                frame.items.append(value)
                frame.marks.append(mark or event.start_mark)
        elif frame.key is _NO_KEY:
            self._start_entry(event, frame, value)
        else:
            key, frame.key = frame.key, _NO_KEY
            if key is _MERGE:
                frame.merges = value if type(value) is list else [value]
            elif not reset:
                frame.value[key] = value

    def _start_entry(self, event: Event, frame: _Frame, key: Any) -> None:
        name = "<<" if key is _MERGE else key
        if type(name) is not str:
            raise self._bad(event, "has a key that YAML reads as something else than text: quote the key")
        if len(name) > MAX_KEY_LENGTH:
            raise self._bad(event, f"has a key longer than {MAX_KEY_LENGTH} characters: shorten it")
        if key in frame.marks:
            line = frame.marks[key].line + 1
            raise self._bad(event, f"has the key `{shown(name)}` twice, first on line {line}: remove one")
        frame.key = key
        frame.marks[key] = event.start_mark

    def _merge(self, event: Event, frame: _Frame) -> None:
        """Fill in what `<<` brings: own keys win, then earlier mappings of the list."""
        # The work is bounded by the alias count: what is merged was counted as the alias came.
        for merged in frame.merges or ():
            if type(merged) is not dict:
                raise self._bad(event, "merges with `<<` what is not a mapping: name an anchor of a mapping")
            marks = self.document.marks[id(merged)]
            for key, value in merged.items():
                if key not in frame.marks:
                    frame.value[key] = value
                    frame.marks[key] = marks[key]

    def _wants_key(self) -> bool:
        if not self.stack:
            return False
        frame = self.stack[-1]
        return frame.items is None and frame.key is _NO_KEY

    def _count(self, event: Event, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self._too_many(event)

    def _path(self) -> Path:
        parts: list[str | int] = []
        for frame in self.stack:
            if type(frame.value) is list:
                parts.append(len(frame.value))
            elif type(frame.key) is str:
                parts.append(frame.key)
        return tuple(parts)

    def _bad(self, event: Event, reason: str) -> InvalidComposeFileError:
        return invalid([problem(self._path(), reason, line_column(event.start_mark))])

    def _too_many(self, event: Event) -> InvalidComposeFileError:
        return self._bad(event, f"makes more than {MAX_NODES} values, aliases expanded: use fewer")

    def _too_deep(self, event: Event) -> InvalidComposeFileError:
        return self._bad(event, f"is nested more than {MAX_DEPTH} deep: flatten it")

    def _unknown_tag(self, event: Event, tag: str) -> InvalidComposeFileError:
        name = shown(tag.replace(_CORE, "!!"))
        return self._bad(event, f"has the tag `{name}`; only Compose's `!reset` and `!override` may be used")

    def _not_yaml(self, error: YAMLError) -> InvalidComposeFileError:
        reason = shown(getattr(error, "problem", None) or "it has a character that YAML does not allow")
        mark = getattr(error, "problem_mark", None)
        return invalid([problem(self._path(), f"is not valid YAML: {reason}", line_column(mark) if mark else None)])
