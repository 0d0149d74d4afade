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
    known = bool(instance) and bool(job.sent_instance)
    gone = known and job.sent_instance != instance
    # Of a job that was acknowledged the very process is asked again too: it may have answered a control plane that
    # was killed before it stored the answer. It runs nothing twice, it only says it once more.
    may_ask = known or job.status is not JobStatus.IN_PROGRESS
    if may_ask and session.can(Capability.RESEND) and job.attempt < MAX_SENDS:
        return Verdict.SEND_AGAIN
    return Verdict.LOST if gone else Verdict.AWAIT
