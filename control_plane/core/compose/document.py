"""A Compose file as plain values that remember where in the file each of them began.

Made by `reader`, asked by every check. Values that aliases share are one object here, so the tree is
never larger than the file.
"""

from dataclasses import dataclass, field
from typing import Any

from yaml import Mark

from control_plane.core.compose.problems import Path


@dataclass(slots=True)
class Document:
    """A file's values, and where each entry of each mapping and list of them began."""

    root: Any = None
    marks: dict[int, Any] = field(default_factory=dict)
    """By the `id()` of a mapping or list that `root` holds: the marks of its entries, by key or index."""

    size: int = 0
    """How many values there are, keys included and aliases expanded."""

    def value(self, path: Path) -> Any:
        """Return what is at `path`, or None where there is nothing."""
        found = self.root
        for part in path:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def position(self, path: Path) -> tuple[int, int] | None:
        """Return the 1-based line and column of the entry at `path`, or of the nearest one around it."""
        nearest, container = None, self.root
        for part in path:
            try:
                nearest, container = self.marks[id(container)][part], container[part]
            except (KeyError, IndexError, TypeError):
                break
        return line_column(nearest) if nearest else None


def line_column(mark: Mark | Any) -> tuple[int, int]:
    """Return the 1-based line and column of a mark of the YAML parser."""
    return mark.line + 1, mark.column + 1
