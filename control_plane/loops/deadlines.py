"""Deadlines: no job stays active for ever. Every overdue one fails with the reason that fits it."""

import asyncio
from datetime import UTC, datetime

from control_plane.core.states import FailureReason, JobStatus
from control_plane.operations.context import ControlPlane
from control_plane.store import jobs
from control_plane.store.models import Job
from control_plane.store.moves import Answer

INTERVAL_SECONDS = 1.0
"""A job is promised to be over five seconds after its deadline."""
BATCH = 500


async def run_once(plane: ControlPlane) -> None:
    """Fail every job whose deadline has passed; one that ended or was sent meanwhile is left alone."""
    while True:
        now = datetime.now(UTC)
        overdue = await plane.store.read(jobs.list_overdue_jobs, now, BATCH)
        await asyncio.gather(*(plane.recorder.record(_expire(plane, job, now)) for job in overdue))
        if len(overdue) < BATCH:
            return


def _expire(plane: ControlPlane, job: Job, now: datetime) -> Answer:
    if job.sent_at is None:
        reason = FailureReason.DELIVERY_TIMEOUT
        error = "The command could not be sent to the agent in time; nothing was done. Deploy again when it is there."
    elif plane.manager.is_connected(job.agent_id):
        reason = FailureReason.EXECUTION_TIMEOUT
        error = (
            f"The agent gave no final answer within {job.timeout_seconds} s. It may still be at work: ask for the "
            "project's status, or deploy again with a longer timeout_seconds."
        )
    else:
        reason = FailureReason.AGENT_LOST
        error = (
            "The agent went offline while it ran the command and did not come back in time. What it did is unknown: "
            "ask for the project's status when it is connected again."
        )
    return Answer(job.id, None, JobStatus.FAILED, now, reason=reason, error=error, only_if_due=True)
