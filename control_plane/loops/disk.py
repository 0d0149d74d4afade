"""Disk: keeps room for work under way, takes new work again once a full disk has room, and misses no lost file."""

from control_plane.operations.context import ControlPlane

INTERVAL_SECONDS = 1.0


async def run_once(plane: ControlPlane) -> None:
    """Look at the disk below the database."""
    await plane.store.look_at_disk()
