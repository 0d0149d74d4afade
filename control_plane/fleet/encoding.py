"""Encoding: what a job becomes on the wire, and what its send becomes in the store. For the dispatcher."""

from datetime import UTC, datetime, timedelta

from control_plane.core.compose import to_wire
from control_plane.core.protocol import CommandType, encode_command
from control_plane.fleet.session import AgentSession
from control_plane.store import jobs
from control_plane.store.jobs import AgentJob
from control_plane.store.store import Store


async def encode_job(store: Store, job: AgentJob, source: bytes | None = None) -> str:
    """Return the command of a job. `source`: its Compose file, which is read from the store if it is not at hand."""
    payload: dict[str, str] = {}
    if job.kind is not CommandType.HEALTH_CHECK:
        payload["project_name"] = job.project_name or ""
    if job.kind is CommandType.DEPLOY_COMPOSE:
        if source is None:
            source = await store.read(jobs.get_compose_of_job, job.id)
        payload["compose_file_base64"] = to_wire(source)
    return encode_command(job.id, job.kind, payload)


def claim_now(job: AgentJob, session: AgentSession) -> jobs.Claim:
    """Return the claim of a send now. Only a first send starts the clock, and only of what changes a project."""
    now = datetime.now(UTC)
    starts = job.kind.changes_project and not job.sent
    deadline = now + timedelta(seconds=job.timeout_seconds) if starts else job.deadline_at
    return jobs.Claim(job.id, job.attempt, session.identity.instance, now, deadline)
