"""Draining: what a control plane does between the wish to stop and the end of its sockets. `serve` calls it.

Nothing that is accepted is lost by stopping, so this is for those who wait: held requests are answered with what
is known, and answers that agents are just sending are stored instead of being asked for after the restart.
"""

import asyncio

import structlog

from control_plane.operations.context import ControlPlane

MOMENT_SECONDS = 1.0
"""For answers under way. Installed agents lose one that they finish while nobody is there, so that a longer wait
would save a few more; but service managers kill after ten seconds, and most commands take longer than that."""

log = structlog.get_logger()


async def drain(plane: ControlPlane) -> None:
    """Admit no agent, send nothing more, release held requests, and store what agents say in their next moment."""
    plane.draining = True
    plane.bus.wake_all()
    sends = asyncio.create_task(plane.dispatcher.close(), name="drain-sends")
    log.info("draining", agents=plane.manager.connected_count, commands=plane.dispatcher.awaited_count)
    try:
        async with asyncio.timeout(MOMENT_SECONDS):
            await plane.dispatcher.all_answered()
    except TimeoutError:
        log.info("still_running", commands=plane.dispatcher.awaited_count)
    await plane.inboxes.drain()
    await asyncio.wait({sends}, timeout=MOMENT_SECONDS)
