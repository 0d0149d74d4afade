"""Jobs: following one to its end, looking back at all, taking back what was not sent."""

from typing import Annotated

from fastapi import Query, Response

from control_plane.api.auth import Caller, needs, protected_router
from control_plane.api.idempotency import KEY_PARAMETER, REPLAYED, REPLAYED_ANSWER, Keyed
from control_plane.api.parameters import (
    AgentFilter,
    Cursor,
    JobId,
    Limit,
    Plane,
    ProjectFilter,
    Wait,
    job_id_from,
    one_page,
)
from control_plane.api.problem_types import problem_responses
from control_plane.api.schemas import JobDetail, JobOut, JobPage
from control_plane.core.access import Role
from control_plane.core.errors import (
    ForbiddenError,
    IdempotencyKeyReusedError,
    JobAlreadySentError,
    JobFinishedError,
    JobNotFoundError,
    OverloadedError,
    StorageFullError,
)
from control_plane.core.states import JobStatus
from control_plane.operations.jobs import cancel_job, wait_for_job
from control_plane.store import jobs

router = protected_router(tags=["Jobs"])


@router.get("/jobs", operation_id="list_jobs", summary="List jobs")
async def list_jobs(
    plane: Plane,
    caller: Caller,
    limit: Limit = 100,
    cursor: Cursor = None,
    project: ProjectFilter = None,
    agent_id: AgentFilter = None,
    status: Annotated[JobStatus | None, Query(description="Only those in this state.")] = None,
) -> JobPage:
    """List jobs, newest first, without their logs."""
    rows = await plane.store.read(
        jobs.list_jobs,
        caller.reach,
        project_name=project,
        agent_id=agent_id,
        status=status,
        before_id=job_id_from(cursor),
        limit=limit + 1,
    )
    page, next_cursor = one_page(rows, limit)
    return JobPage(
        jobs=[JobOut.model_validate(row) for row in page],
        next_cursor=next_cursor,
    )


@router.get(
    "/jobs/{job_id}",
    operation_id="get_job",
    summary="Show one job, or wait for its outcome",
    responses=problem_responses(JobNotFoundError),
)
async def get_job(plane: Plane, caller: Caller, job_id: JobId, wait: Wait = 0) -> JobDetail:
    """Show a job with its log. With `wait` the answer is held until the job is over."""
    return JobDetail.model_validate(await wait_for_job(plane, caller, job_id, wait))


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Take back a job that was not sent yet",
    responses=problem_responses(
        ForbiddenError,
        JobNotFoundError,
        JobAlreadySentError,
        JobFinishedError,
        OverloadedError,
        StorageFullError,
        IdempotencyKeyReusedError,
    )
    | REPLAYED_ANSWER,
    openapi_extra=needs(Role.DEPLOYER, **KEY_PARAMETER),
)
async def post_cancel(plane: Plane, caller: Caller, job_id: JobId, keyed: Keyed, response: Response) -> JobDetail:
    """Fail a queued job as `canceled`. One that was sent cannot be taken back: 409 says what to do instead."""
    job, replayed = await cancel_job(plane, caller, job_id, keyed)
    if replayed:
        response.headers.update(REPLAYED)
    return JobDetail.model_validate(job)
