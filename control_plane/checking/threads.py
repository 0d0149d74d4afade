"""ThreadChecker: judges in this process. For programs that embed the app, and for tests of everything else.

A large file holds Python's lock for up to 300 ms, in pieces; the server therefore judges in processes.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from control_plane.checking.base import quick_to_judge
from control_plane.core.compose import ComposeFile, read_compose

CHECKED_AT_ONCE_BYTES = 2048
"""Up to here even a hostile file takes about as long to judge as a thread takes to be asked."""


class ThreadChecker:
    """Small files at once, larger ones in two threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="compose-check")

    async def check(self, source: bytes, project_name: str) -> ComposeFile:
        """Judge one file; see Checker.check."""
        if quick_to_judge(source, CHECKED_AT_ONCE_BYTES):
            return read_compose(source, project_name)
        return await asyncio.get_running_loop().run_in_executor(self._threads, read_compose, source, project_name)

    async def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
