"""Draining: what a control plane does between the wish to stop and the end of its sockets. `serve` calls it.

Nothing that is accepted is lost by stopping, so this is for those who wait, and for installed agents, which lose an
answer that they finish while nobody is there: commands that run are given the grace to end before the sockets do.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice

import structlog

from control_plane.core.protocol import CloseCode
from control_plane.fleet.session import AgentSession
from control_plane.operations.context import ControlPlane
from control_plane.operations.grace import MOMENT_SECONDS

CLOSES_PER_SECOND = 2_000
"""Installed agents dial again a second after their socket was closed, all with the same wait: this is the rate at
which they meet the next process, which takes back 1,500 a second and has 10 s for each. Slower would cost more:
whoever is closed early is refused until the process has changed, and waits twice as long after each refusal."""
CLOSES_AT_ONCE = 100

log = structlog.get_logger()


async def drain(plane: ControlPlane) -> None:
    """Send nothing more, wait for the answers to what was sent, then release held requests and close the sockets.

    Until the sockets close, agents may still connect, so that one whose link broke can bring its answer.
    """
    plane.draining = True
    plane.grace.begin()
    sends = asyncio.create_task(plane.dispatcher.close(), name="drain-sends")
    agents = plane.manager.connected_count
    log.info("draining", agents=agents, commands=plane.dispatcher.awaited_count, most_seconds=round(plane.grace.left))
    if not await plane.grace.allows(plane.dispatcher.all_answered(), spare=agents / CLOSES_PER_SECOND):
        log.info("still_running", commands=plane.dispatcher.awaited_count)
    plane.closing = True
    plane.bus.wake_all()
    await _close_sockets(plane)
    await asyncio.wait({sends}, timeout=MOMENT_SECONDS)


async def _close_sockets(plane: ControlPlane) -> None:
    """Tell every agent that the control plane restarts, no more than so many a second; who still works is last."""
    sessions = plane.manager.get_connected_agents()
    sessions.sort(key=lambda session: bool(plane.dispatcher.running_jobs(session)))
    groups = list(_groups(sessions))
    for number, group in enumerate(groups):
        if number:
            pause = min(CLOSES_AT_ONCE / CLOSES_PER_SECOND, plane.grace.left / (len(groups) - number))
            await plane.grace.allows(asyncio.sleep(pause))
        for session in group:
            await session.socket.close(CloseCode.RESTARTING, "the control plane restarts")


def _groups(sessions: Sequence[AgentSession]) -> Iterator[list[AgentSession]]:
    rest = iter(sessions)
    while group := list(islice(rest, CLOSES_AT_ONCE)):
        yield group
