"""Observing: brings the gauges up to the moment when somebody scrapes. The metrics route calls it.

It is asked when things go wrong, so it answers then too: what the store does not say in time is NaN.
"""

import asyncio
import math

from control_plane.core.access import DEFAULT_ORGANIZATION_ID, Actor
from control_plane.core.errors import ForbiddenError, UnavailableError
from control_plane.operations.context import ControlPlane
from control_plane.operations.tokens import require_whole_reach
from control_plane.store import jobs

STORE_SECONDS = 2.0
"""A scraper waits ten seconds by default, and may ask every fifteen."""


def require_whole_service(actor: Actor) -> None:
    """Return for a token that may see what concerns all organisations: an unlimited one of the first.

    Raises ForbiddenError.
    """
    require_whole_reach(actor)
    if actor.organization_id != DEFAULT_ORGANIZATION_ID:
        raise ForbiddenError(
            "This tells of all organisations together: use a token of the first organisation, such as a viewer that "
            "whoever runs the control plane makes for it."
        )


async def observe(plane: ControlPlane) -> None:
    """Set every gauge that tells how much there is now."""
    metrics = plane.metrics
    metrics.agents_connected.set(plane.manager.connected_count)
    metrics.agents_unresponsive.set(plane.health.unresponsive_count)
    metrics.commands_awaited.set(plane.dispatcher.awaited_count)
    metrics.answers_waiting.set(plane.inboxes.waiting_count)
    metrics.writer_waiting.set(plane.store.waiting_count)
    metrics.jobs_queued.set(await _count_queued(plane))


async def _count_queued(plane: ControlPlane) -> float:
    try:
        async with asyncio.timeout(STORE_SECONDS):
            return await plane.store.read(jobs.count_queued)
    except (TimeoutError, UnavailableError):
        return math.nan
