"""Tokens: learns of those that other processes made or ended, and writes which were used."""

from control_plane.operations.context import ControlPlane

INTERVAL_SECONDS = 2.0
"""A token that was revoked elsewhere is good for no longer; five seconds are promised."""


async def run_once(plane: ControlPlane) -> None:
    """Read what has changed, write what was used."""
    await plane.token_book.refresh()
    await plane.token_book.write_uses()
