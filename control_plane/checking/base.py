"""Checker: what operations need in order to have a Compose file judged."""

from typing import Protocol

from control_plane.core.compose import ComposeFile


class Checker(Protocol):
    """Judges Compose files without holding up the event loop for long."""

    async def check(self, source: bytes, project_name: str) -> ComposeFile:
        """Return the file, judged by `core.compose.read_compose`; raises what that raises."""
        ...

    async def close(self) -> None:
        """End what judges; nobody may be waiting any more."""
        ...
