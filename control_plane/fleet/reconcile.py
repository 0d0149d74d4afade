"""What to do about a job that was sent before its agent's connection was lost. Pure.

A command is never sent again while an earlier send of it may still be running. Whether it may is known only
of agents that name their process (`X-Agent-Instance`) and that answer a known id without running it again
(capability `resend`); of all others the answer is awaited until the deadline.
"""

from enum import Enum, auto

from control_plane.core.protocol import Capability
from control_plane.core.states import JobStatus
from control_plane.fleet.session import AgentSession
from control_plane.store.jobs import AgentJob

MAX_SENDS = 3


class Verdict(Enum):
    """What becomes of the job."""

    SEND = auto()
    """It was never sent."""
    SEND_AGAIN = auto()
    AWAIT = auto()
    """It may be running; its answer may come on any connection."""
    LOST = auto()
    """The process that ran it is gone, and it cannot be sent again."""


def judge(job: AgentJob, session: AgentSession) -> Verdict:
    """Decide about an active job of an agent that has just connected."""
    if not job.sent:
        return Verdict.SEND
    instance = session.identity.instance
    same_process = not instance or not job.sent_instance or job.sent_instance == instance
    if same_process and (job.status is JobStatus.IN_PROGRESS or not session.can(Capability.RESEND)):
        return Verdict.AWAIT
    if session.can(Capability.RESEND) and job.attempt < MAX_SENDS:
        return Verdict.SEND_AGAIN
    return Verdict.AWAIT if same_process else Verdict.LOST
