"""A server that stops as most do: all sockets are closed at once, whatever their agents are doing."""

from typing import Any

from control_plane import serve
from control_plane.operations.context import ControlPlane


def apply() -> None:
    """Wait for nothing between the signal and the end of the sockets."""
    server: Any = serve
    server.drain = _at_once


async def _at_once(plane: ControlPlane) -> None:
    plane.draining = plane.closing = True
    plane.grace.begin()
    plane.grace.end()
    plane.bus.wake_all()
