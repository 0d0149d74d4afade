"""What moves a job, and what is known of the job that it moves. Made above the store and in `answers`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control_plane.core.states import FailureReason, JobStatus


class NotMovedError(Exception):
    """A guarded write found its row in another state: somebody else was first."""


@dataclass(slots=True)  # not frozen: that doubles the time it takes to make one
class Answer:
    """A move of a job. `status` is IN_PROGRESS, COMPLETED or FAILED; `reason` is given with FAILED.

    `agent_id` names the agent that answers; None is the control plane itself, which may end any job.
    `said_last` is the last of several answers in one, whose logs are in `logs` together.
    `only_unsent` holds the move back once the command was sent, `only_if_due` until its deadline has passed.
    """

    job_id: str
    agent_id: int | None
    status: JobStatus
    at: datetime
    logs: str = ""
    said_last: str | None = None
    whole_log: bool = False
    reason: FailureReason | None = None
    error: str | None = None
    data: Any = None
    only_unsent: bool = False
    only_if_due: bool = False


@dataclass(slots=True)  # not frozen: that doubles the time it takes to make one
class JobFacts:
    """What is read of a job to move it, in the order in which `answers` selects it."""

    id: str
    organization_id: int
    status: str
    agent_id: int
    deployment_id: int | None
    project_name: str | None
    command_type: str
    sent_at: datetime | None
    deadline_at: datetime
    logs: str
