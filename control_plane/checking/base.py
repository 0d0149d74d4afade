"""Checker: what operations need in order to have a Compose file judged."""

from typing import Protocol

from control_plane.core.compose import ComposeFile


def quick_to_judge(source: bytes, quick_bytes: int) -> bool:
    """Whether a file up to `quick_bytes` long surely takes no longer to judge than its length suggests.

    Not where it may have aliases: with them 4 KiB can say 50,000 values, which take as long as 256 KiB.
    """
    return len(source) <= quick_bytes and not (b"*" in source and b"&" in source)


class Checker(Protocol):
    """Judges Compose files without holding up the event loop for long."""

    async def check(self, source: bytes, project_name: str) -> ComposeFile:
        """Return the file, judged by `core.compose.read_compose`; raises what that raises."""
        ...

    async def close(self) -> None:
        """End what judges; nobody may be waiting any more."""
        ...
