"""Jobs as users follow them: waiting for the outcome, and taking back what was not sent yet."""

import asyncio
from datetime import UTC, datetime

from control_plane.bus.base import Topic
from control_plane.core.access import Actor, Reach
from control_plane.core.errors import JobAlreadySentError, JobFinishedError
from control_plane.core.protocol import CommandType
from control_plane.core.states import TERMINAL_JOB_STATUSES, FailureReason, JobStatus
from control_plane.operations.context import ControlPlane
from control_plane.store import jobs
from control_plane.store.answers import Outcome
from control_plane.store.idempotency import AnsweredBeforeError, KeyedRequest
from control_plane.store.models import Job
from control_plane.store.moves import Answer

REREAD_SECONDS = 5
"""A wake-up may be lost; the store is read again this often all the same."""


async def wait_for_job(plane: ControlPlane, actor: Actor, job_id: str, seconds: float, *, own: bool = False) -> Job:
    """Return the job as soon as it is over, or as it stands after `seconds`. Raises JobNotFoundError.

    `own`: the request has made it or taken part in it, so that it is told of it whatever its token reaches by now;
    an agent may lose its labels while a job runs. The same goes for a job once it was found.
    """
    reach = Reach(actor.organization_id) if own else actor.reach
    if seconds <= 0:
        return await plane.store.read(jobs.get_job, reach, job_id)
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    with plane.bus.subscribe(Topic.JOB_FINISHED, job_id) as ear:
        while True:
            job = await plane.store.read(jobs.get_job, reach, job_id)
            reach = Reach(actor.organization_id)
            left = until - clock()
            if job.status in TERMINAL_JOB_STATUSES or left <= 0 or plane.closing:
                return job
            await ear.wait(min(left, REREAD_SECONDS))


async def cancel_job(
    plane: ControlPlane, actor: Actor, job_id: str, request: KeyedRequest | None = None
) -> tuple[Job, bool]:
    """Fail a job that was not sent yet as `canceled`; returns it, and whether it was before (see `deploy`).

    Raises JobNotFoundError, JobAlreadySentError, JobFinishedError, IdempotencyKeyReusedError.
    """
    await plane.store.read(jobs.get_job, actor.reach, job_id)
    answer = Answer(
        job_id,
        None,
        JobStatus.FAILED,
        datetime.now(UTC),
        reason=FailureReason.CANCELED,
        error="Canceled before it was sent to the agent.",
        only_unsent=True,
    )
    try:
        outcome = await plane.recorder.record(answer, request, actor.concerns(f"job {job_id}", job_id))
    except AnsweredBeforeError:
        return await wait_for_job(plane, actor, job_id, 0, own=True), True
    job = await wait_for_job(plane, actor, job_id, 0, own=True)
    if outcome is Outcome.LATE:
        raise JobFinishedError(f"Job {job_id} is over already ({job.status}); there is nothing to cancel.")
    if outcome is Outcome.HELD_BACK:
        raise JobAlreadySentError(_what_instead(job))
    return job, False


def _what_instead(job: Job) -> str:
    if job.command_type == CommandType.DEPLOY_COMPOSE:
        advice = f"wait for it, then stop the project with POST /projects/{job.project_name}/stop or deploy again"
    else:
        advice = f"wait for it with GET /jobs/{job.id}?wait=60"
    return f"The agent has the command of job {job.id} already, and agents cannot take one back: {advice}."
