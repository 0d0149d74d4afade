"""Deploys, stops and status queries with answers in every order, on a real store beside a small model of it."""

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from control_plane.core.protocol import CommandType
from control_plane.core.states import TERMINAL_JOB_STATUSES, FailureReason, JobStatus
from control_plane.store.deployments import accept_deployments
from control_plane.store.jobs import Claim, add_jobs, claim_jobs
from control_plane.store.moves import Answer, NotMovedError
from tests.support.model import Model, ModelJob
from tests.support.store import (
    BROKEN,
    DEADLINE,
    NOW,
    add_agent,
    new_deployment,
    new_id,
    new_job,
    open_store,
    record,
    record_together,
    sql,
)

AGENTS = st.sampled_from([1, 1, 1, 2])
PROJECTS = st.sampled_from(["web", "web", "web", "shop"])
"""Mostly one place, for there things meet."""


class Answers(RuleBasedStateMachine):
    jobs: Bundle[str] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "control_plane.db"
        self.model = Model()

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def begin(self) -> None:
        async def opened() -> Any:
            store = open_store(self.path)
            await add_agent(store, "alpha")
            await add_agent(store, "beta")
            return store

        self.store = self.run(opened())

    @rule(target=jobs, agent=AGENTS, project=PROJECTS, send=st.booleans())
    def deploy(self, agent: int, project: str, *, send: bool) -> str:
        new = new_deployment(project, agent)
        deployment = self.run(self.store.write(accept_deployments, new))
        self.model.deployments[deployment] = ("pending", None)
        self.model.jobs[new.job_id] = ModelJob(CommandType.DEPLOY_COMPOSE, (agent, project), deployment, DEADLINE)
        if send:
            self.send(new.job_id, stale=False)
        return new.job_id

    @rule(target=jobs, earlier=jobs, kind=st.sampled_from([CommandType.STOP_COMPOSE, CommandType.STATUS]))
    def command(self, earlier: str, kind: CommandType) -> str:
        before = self.model.jobs[earlier]
        agent, project = before.place
        new = new_job(kind, project, agent, deployment_id=before.deployment)
        stored: str = self.run(self.store.write(add_jobs, new))
        shared = [
            job_id
            for job_id, job in self.model.jobs.items()
            if kind is CommandType.STATUS
            and (job.kind, job.place) == (kind, before.place)
            and job.status not in TERMINAL_JOB_STATUSES
        ]
        assert stored == (shared[0] if shared else new.job_id)
        self.model.jobs.setdefault(stored, ModelJob(kind, before.place, before.deployment, DEADLINE))
        return stored

    @rule(job=jobs, stale=st.booleans())
    def send(self, job: str, *, stale: bool) -> None:
        known = self.model.jobs[job]
        attempt = known.sends + stale
        try:
            self.run(self.store.write(claim_jobs, Claim(job, attempt, "", NOW, DEADLINE)))
        except NotMovedError:
            assert stale or known.status in TERMINAL_JOB_STATUSES
        else:
            assert not stale
            assert known.status not in TERMINAL_JOB_STATUSES
            known.sends += 1

    @rule(
        picks=st.lists(
            st.tuples(jobs, st.sampled_from([None, 1, 2]), st.sampled_from(list(JobStatus)[1:])), min_size=1
        ),
        together=st.booleans(),
    )
    def answer(self, picks: list[tuple[str, int | None, JobStatus]], *, together: bool) -> None:
        """Answers of the right agent, of another one and of none; late, repeated, reordered, several in a commit."""
        self._tell([_answer(*pick, logs=f"{index}") for index, pick in enumerate(picks)], together=together)

    @rule(several=st.lists(jobs, min_size=1, max_size=4), together=st.booleans())
    def finish_as_told(self, several: list[str], *, together: bool) -> None:
        steps = (JobStatus.IN_PROGRESS, JobStatus.IN_PROGRESS, JobStatus.COMPLETED)
        agents = {job: self.model.jobs[job].place[0] for job in several}
        for status in steps:
            self._tell([_answer(job, agents[job], status) for job in agents], together=together)

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        self._tell([_answer(job, None, JobStatus.FAILED, only_unsent=True)], together=False)

    @rule(job=jobs, seconds=st.sampled_from([-1, 0]))
    def pass_deadline(self, job: str, seconds: int) -> None:
        at = DEADLINE + timedelta(seconds=seconds)
        self._tell([_answer(job, None, JobStatus.FAILED, only_if_due=True, at=at)], together=False)

    @rule(agent=AGENTS)
    def answer_for_no_job(self, agent: int) -> None:
        self._tell([_answer(new_id(), agent, JobStatus.COMPLETED)], together=False)

    def _tell(self, answers: list[Answer], *, together: bool) -> None:
        apply = record_together if together else record
        outcomes = list(self.run(apply(self.store, *answers)))
        assert outcomes == [self.model.answer(answer) for answer in answers]

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        if not self.model.jobs:
            return
        jobs = {job_id: (job.status, job.sends) for job_id, job in self.model.jobs.items()}
        assert {row[0]: row[1:] for row in sql(self.path, "SELECT id, status, attempt FROM job")} == jobs
        rows = sql(self.path, "SELECT id, status, last_error FROM deployment")
        assert {row[0]: row[1:] for row in rows} == self.model.deployments

    @invariant()
    def nothing_contradicts_itself(self) -> None:
        for query in BROKEN:
            assert not self.model.jobs or sql(self.path, query) == [], query

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        self.directory.cleanup()


def _answer(job: str, agent: int | None, status: JobStatus, **more: Any) -> Answer:
    failed = status is JobStatus.FAILED
    reason, error = (FailureReason.AGENT_ERROR, f"by {agent}") if failed else (None, None)
    return Answer(**{"at": NOW, "reason": reason, "error": error, **more}, job_id=job, agent_id=agent, status=status)


TestAnswers = Answers.TestCase
TestAnswers.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
