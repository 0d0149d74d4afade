"""Retention: what is old is removed, every hour and for the first time some minutes after the start."""

import random

import structlog

from control_plane.operations.context import ControlPlane
from control_plane.operations.retaining import remove_old

INTERVAL_SECONDS = 3600.0
FIRST_AFTER_SECONDS = random.uniform(180, 600)  # noqa: S311 - not a secret
"""After the agents are back; at random, lest servers that were started together burden one disk together."""

log = structlog.get_logger()


async def run_once(plane: ControlPlane) -> None:
    """Remove what is old and say how much that was."""
    removed = await remove_old(plane.store, retention_days=plane.limits.retention_days)
    if removed:
        log.info("old_rows_removed", **removed)
