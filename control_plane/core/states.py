"""Job and deployment statuses and the moves between them; the store moves rows only through these tables.

A move that the table does not allow is late or a duplicate: it changes nothing. First terminal answer wins.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from control_plane.core.protocol import ResponseStatus

Status = TypeVar("Status", bound=StrEnum)


class JobStatus(StrEnum):
    """How far one command's execution is."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class DeploymentStatus(StrEnum):
    """What one revision of a project on an agent has come to."""

    PENDING = "pending"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"
    SUPERSEDED = "superseded"


class AgentStatus(StrEnum):
    """Whether an agent's socket is up, and whether the agent answers on it."""

    ONLINE = "online"
    UNRESPONSIVE = "unresponsive"
    """The socket is up, and three health checks in a row were not answered."""
    OFFLINE = "offline"


class FailureReason(StrEnum):
    """Why a job failed, stable for programs; the sentence for people is in the job's `error`."""

    AGENT_ERROR = "agent_error"
    """The agent ran the command and said FAILED."""
    DELIVERY_TIMEOUT = "delivery_timeout"
    """It could not be sent before its deadline."""
    EXECUTION_TIMEOUT = "execution_timeout"
    """It was sent, the agent is connected, and no final answer came before its deadline."""
    AGENT_LOST = "agent_lost"
    """It was sent, and the agent that ran it is gone."""
    RESULT_LOST = "result_lost"
    """The agent's answer could not be taken (too large)."""
    CANCELED = "canceled"
    SUPERSEDED = "superseded"
    DISPATCH_FAILED = "dispatch_failed"
    """Every one of its sends failed."""


JOB_MOVES: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.IN_PROGRESS, JobStatus.COMPLETED, JobStatus.FAILED}),
    JobStatus.IN_PROGRESS: frozenset({JobStatus.COMPLETED, JobStatus.FAILED}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
}

DEPLOYMENT_MOVES: Mapping[DeploymentStatus, frozenset[DeploymentStatus]] = {
    DeploymentStatus.PENDING: frozenset({DeploymentStatus.RUNNING, DeploymentStatus.FAILED}),
    DeploymentStatus.RUNNING: frozenset({DeploymentStatus.STOPPED, DeploymentStatus.SUPERSEDED}),
    DeploymentStatus.FAILED: frozenset(),
    DeploymentStatus.STOPPED: frozenset(),
    DeploymentStatus.SUPERSEDED: frozenset(),
}

ACTIVE_JOB_STATUSES = tuple(status for status, moves in JOB_MOVES.items() if moves)
TERMINAL_JOB_STATUSES = tuple(status for status, moves in JOB_MOVES.items() if not moves)


def can_move(moves: Mapping[Status, frozenset[Status]], current: Status, target: Status) -> bool:
    """Whether a row in `current` may go to `target` under one of the two tables above."""
    return target in moves[current]


def sources_of(moves: Mapping[Status, frozenset[Status]], target: Status) -> tuple[Status, ...]:
    """Return the statuses from which `target` may be reached, for the WHERE of a guarded update."""
    return tuple(status for status, targets in moves.items() if target in targets)


def job_status_for(answer: ResponseStatus) -> JobStatus:
    """Return the job status that an agent's answer asks for."""
    return JobStatus(answer.value.lower())
