"""Tokens: learns of those that others made or ended, writes which were used, makes those wanted on the host."""

from pathlib import Path

from control_plane.operations.context import ControlPlane
from control_plane.operations.errands import do_errands

INTERVAL_SECONDS = 2.0
"""A token that was revoked elsewhere is good for no longer; five seconds are promised."""


async def run_once(plane: ControlPlane, errands: Path) -> None:
    """Read what has changed, write what was used, and do what commands on the host have asked for in `errands`."""
    await plane.token_book.refresh()
    await plane.token_book.write_uses()
    await do_errands(plane, errands)
