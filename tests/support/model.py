"""A model of what answers do to jobs and deployments, to be run beside the real store. It stays under 60 lines."""

from dataclasses import dataclass
from datetime import datetime

from control_plane.core.protocol import CommandType
from control_plane.core.states import TERMINAL_JOB_STATUSES, JobStatus
from control_plane.store.answers import Outcome
from control_plane.store.moves import Answer


@dataclass
class ModelJob:
    kind: CommandType
    place: tuple[int, str]
    deployment: int
    due_at: datetime
    sends: int = 0
    status: str = "queued"


class Model:
    """What the store is to do, as plainly as it can be said."""

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.deployments: dict[int, tuple[str, str | None]] = {}
        self.current: dict[tuple[int, str], int] = {}

    def answer(self, answer: Answer) -> Outcome:
        job = self.jobs.get(answer.job_id)
        if job is None:
            return Outcome.UNKNOWN
        if answer.agent_id is not None and (answer.agent_id != job.place[0] or not job.sends):
            return Outcome.FORGED
        if job.status in TERMINAL_JOB_STATUSES:
            return Outcome.LATE
        if (answer.only_unsent and job.sends) or (answer.only_if_due and answer.at < job.due_at):
            return Outcome.HELD_BACK
        if answer.status == job.status:
            return Outcome.LOGGED
        job.status = answer.status
        if answer.status in TERMINAL_JOB_STATUSES:
            self._end(job, answer.error, done=answer.status is JobStatus.COMPLETED)
        return Outcome.MOVED

    def _end(self, job: ModelJob, error: str | None, *, done: bool) -> None:
        running = self.current.get(job.place)
        if job.kind is CommandType.DEPLOY_COMPOSE:
            if done and running:
                self.deployments[running] = ("superseded", self.deployments[running][1])
            if done:
                self.current[job.place] = job.deployment
            self.deployments[job.deployment] = ("running" if done else "failed", error)
        elif job.kind is CommandType.STOP_COMPOSE and done and running:
            self.deployments[self.current.pop(job.place)] = ("stopped", None)
        elif job.kind is CommandType.STOP_COMPOSE and not done:
            noted = running or job.deployment
            self.deployments[noted] = (self.deployments[noted][0], error)
