"""The next command goes out without waiting for the acknowledgement of the one before."""

from control_plane.fleet.lane import Lane
from control_plane.store.jobs import AgentJob


def apply() -> None:
    """Take every command for acknowledged once it is sent."""
    sent = Lane.sent

    def sent_and_acknowledged(self: Lane, job: AgentJob) -> None:
        sent(self, job)
        self.acknowledged(job.id)

    Lane.sent = sent_and_acknowledged  # type: ignore[method-assign]
