"""Files sorted by their length alone: a few KiB of aliases are judged where everybody's small files are."""

from typing import Any

from control_plane.checking import processes

PROCESSES: Any = processes


def apply() -> None:
    """Look for no aliases."""
    PROCESSES.quick_to_judge = lambda source, quick_bytes: len(source) <= quick_bytes
