"""Compose files judged in the server's own process, under its one Python lock."""

from typing import Any

from control_plane import serve
from control_plane.checking.threads import ThreadChecker

SERVE: Any = serve


def apply() -> None:
    """Start no processes for it."""
    SERVE.ProcessChecker = ThreadChecker
