"""From a job to the answers that tell of it."""

from control_plane.api.schemas import QueryAnswer
from control_plane.core.access import Actor
from control_plane.core.states import FailureReason, JobStatus
from control_plane.operations.context import ControlPlane
from control_plane.operations.jobs import wait_for_job
from control_plane.store.models import Job


def outcome_of(job: Job) -> dict[str, object]:
    """Return JobOutcome's fields for a job."""
    return {
        "job_id": job.id,
        "status": JobStatus(job.status),
        "logs": job.logs,
        "error": job.error,
        "reason": FailureReason(job.reason) if job.reason else None,
    }


async def query_answer(plane: ControlPlane, actor: Actor, job_id: str, wait: float) -> QueryAnswer:
    """Wait for the actor's STATUS or HEALTH_CHECK for up to `wait` seconds and answer with what is known then."""
    job = await wait_for_job(plane, actor, job_id, wait, own=True)
    return QueryAnswer(**outcome_of(job), data=job.data)
