"""Lane: the order in which one connected agent gets its commands. Pure; the dispatcher does what it says.

Two rules, both of installed agents' making: one project's deploys and stops run one after another, and a command
goes out only after the one before it was acknowledged, for an agent that writes two answers at the same instant
crashes. STATUS and HEALTH_CHECK wait for no project.
"""

from collections import OrderedDict

from control_plane.core.compose import folded_name
from control_plane.core.protocol import CommandType
from control_plane.store.jobs import AgentJob


class Lane:
    """Holds an agent's waiting jobs by id, which is their order of creation."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, AgentJob] = OrderedDict()
        self._running: dict[str, str] = {}
        """Folded project name → id of the job that changes the project now."""
        self._questions: list[str] = []
        """Ids of the STATUS and HEALTH_CHECK jobs that were sent and are not over."""
        self._unacknowledged: str | None = None

    def add(self, job: AgentJob) -> None:
        """Queue a job; one that is known already is left as it is."""
        if job.id in self._waiting or job.id in self._running.values():
            return
        out_of_order = bool(self._waiting) and job.id < next(reversed(self._waiting))
        self._waiting[job.id] = job
        if out_of_order:
            self._waiting = OrderedDict(sorted(self._waiting.items()))

    def add_running(self, job: AgentJob) -> None:
        """Note a job that the agent was sent before and may still be running."""
        if job.kind.changes_project and job.project_name:
            self._running.setdefault(folded_name(job.project_name), job.id)

    def next(self) -> AgentJob | None:
        """Take the oldest job that may be sent now, None if none may."""
        if self._unacknowledged is not None:
            return None
        for job in self._waiting.values():
            if self._is_free(job):
                del self._waiting[job.id]
                return job
        return None

    def is_open_for(self, job: AgentJob) -> bool:
        """Whether a new job could be sent now without passing one that waits."""
        return self._unacknowledged is None and not self._waiting and self._is_free(job)

    def sent(self, job: AgentJob) -> None:
        """Note that a job goes out."""
        self._unacknowledged = job.id
        if job.kind.changes_project:
            self.add_running(job)
        else:
            self._questions.append(job.id)

    def hold(self, question: AgentJob, *, alone: bool) -> bool:
        """Let nothing follow a question that is no job before it is acknowledged; False if it may not go itself.

        It passes nothing that waits, and with `alone` it may go only while no job runs.
        """
        if not self.is_open_for(question) or (alone and bool(self._running or self._questions)):
            return False
        self._unacknowledged = question.id
        return True

    def acknowledged(self, job_id: str) -> bool:
        """Note the first answer for a job; returns whether that lets the next command out."""
        if self._unacknowledged != job_id:
            return False
        self._unacknowledged = None
        return True

    def over(self, job_id: str) -> None:
        """Note that a job has ended, wherever it was."""
        self.acknowledged(job_id)
        self._waiting.pop(job_id, None)
        if job_id in self._questions:
            self._questions.remove(job_id)
        self._running = {name: running for name, running in self._running.items() if running != job_id}

    @property
    def unacknowledged(self) -> str | None:
        """The id of the job whose first answer is awaited."""
        return self._unacknowledged

    @property
    def waiting_count(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def has_waiting(self) -> bool:
        """Whether jobs wait, sendable now or not."""
        return bool(self._waiting)

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs known here."""
        return [*self._waiting, *self._running.values()]

    def running_jobs(self) -> list[str]:
        """Return the ids of deploys and stops that the agent may be running."""
        return list(self._running.values())

    def _is_free(self, job: AgentJob) -> bool:
        if job.kind in {CommandType.STATUS, CommandType.HEALTH_CHECK} or job.project_name is None:
            return True
        return self._running.get(folded_name(job.project_name), job.id) == job.id
