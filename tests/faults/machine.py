"""Deploys, stops, answers of every kind, lost connections, restarts and the clock, in any order, beside a small model.

Everything is real but the network: operations, dispatcher, recorder, loops and the SQLite file, which a restart
opens again. `test_state_machine` drives it.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, rule

from control_plane.core.errors import AgentNotConnectedError, ControlPlaneError, ProjectNotFoundError
from control_plane.core.protocol import CommandType, ResponseStatus
from control_plane.core.states import TERMINAL_JOB_STATUSES, JobStatus
from control_plane.fleet.reconcile import MAX_SENDS
from control_plane.loops import deadlines
from control_plane.operations import commanding, deploying, jobs
from tests.faults.memory_hosts import Hosts
from tests.support.access import ROOT
from tests.support.model import ModelJob
from tests.support.store import BROKEN, new_id

HOSTS = st.sampled_from(["go", "go", "python"])
PROJECTS = st.sampled_from(["web", "web", "web", "shop"])
"""Mostly one place, for there things meet."""
STATUSES = st.sampled_from(list(ResponseStatus)[1:])
ENDS = st.sampled_from([ResponseStatus.COMPLETED, ResponseStatus.COMPLETED, ResponseStatus.FAILED])
BACK = st.sampled_from([True, True, True, False])
WORK = st.sampled_from([CommandType.DEPLOY_COMPOSE] * 3 + [CommandType.STOP_COMPOSE, CommandType.STATUS])
TROUBLE = st.sampled_from(
    ["cut"] * 6 + ["restart"] + [timedelta(minutes=2), timedelta(minutes=20), timedelta(hours=25)]
)
"""After two minutes questions are over their deadlines, after twenty what was sent, after a day everything."""
SOURCE = b"services:\n  web:\n    image: nginx:alpine\n"


class Machine(Hosts):
    """What may happen, and what must hold after each step."""

    all_jobs: Bundle[str] = Bundle("all_jobs")

    @initialize()
    def begin(self) -> None:
        self.path.write_bytes(self.empty)
        self.open()
        for host in ("go", "python"):
            self.connect(host, new_process=False)

    @rule(what=TROUBLE, host=HOSTS, back=BACK, new_process=st.booleans())
    def have_trouble(self, what: str | timedelta, host: str, *, back: bool, new_process: bool) -> None:
        """Lose a connection or the whole control plane, or let time pass; mostly the agents are back at once."""
        if isinstance(what, timedelta):
            self.pass_time(what)
        elif what == "restart":
            self.restart()
        else:
            self.disconnect(host)
        for each in self.ids if back else ():
            self.connect(each, new_process=new_process)

    @rule(target=all_jobs, what=WORK, host=HOSTS, project=PROJECTS, ends=st.none() | ENDS)
    def ask(self, what: CommandType, host: str, project: str, ends: ResponseStatus | None) -> str:
        """Ask for something; if it goes out at once, its agent may bring it to an end at once."""
        job_id = self.deploy(host, project) if what is CommandType.DEPLOY_COMPOSE else self.command(host, project, what)
        if ends is not None and job_id in self.model.jobs and self.model.jobs[job_id].sends:
            self.say(host, job_id, ResponseStatus.IN_PROGRESS, ends)
        return job_id

    def deploy(self, host: str, project: str) -> str:
        due_at = datetime.now(UTC) + timedelta(hours=24)
        agent_id = self.ids[host]

        async def deployed() -> str:
            accepted = await deploying.deploy(
                self.plane, ROOT, project, SOURCE, agent_id=agent_id, queue_when_offline=True
            )
            self.model.deployments[accepted.deployment_id] = ("pending", None)
            self.model.jobs[accepted.job_id] = ModelJob(
                CommandType.DEPLOY_COMPOSE, (agent_id, project), accepted.deployment_id, due_at
            )
            return accepted.job_id

        return str(self.run(deployed()))

    def command(self, host: str, project: str, kind: CommandType) -> str:
        """Stop a project or ask for its status; what cannot be done is refused, and leaves no job."""
        place, stops = (self.ids[host], project), kind is CommandType.STOP_COMPOSE
        due_at = datetime.now(UTC) + (timedelta(hours=24) if stops else timedelta(minutes=1))

        async def asked() -> str:
            if stops:
                job_id, _ = await commanding.stop(self.plane, ROOT, project, agent_id=place[0])
            else:
                job_id = await commanding.ask_status(self.plane, ROOT, project, agent_id=place[0])
            [deployment] = self.sql("SELECT deployment_id FROM job WHERE id = ?", job_id)
            self.model.jobs.setdefault(job_id, ModelJob(kind, place, deployment, due_at))
            return job_id

        try:
            return str(self.run(asked()))
        except ProjectNotFoundError:
            assert all(job.place != place for job in self.model.jobs.values())
        except AgentNotConnectedError:
            assert host not in self.sessions
        return new_id()

    @rule(job=all_jobs)
    def cancel(self, job: str) -> None:
        known = self.model.jobs.get(job)
        may = known is not None and not known.sends and known.status not in TERMINAL_JOB_STATUSES
        try:
            self.run(jobs.cancel_job(self.plane, ROOT, job))
        except ControlPlaneError:
            assert not may
        else:
            assert may
            self.tell(job, JobStatus.FAILED, "Canceled before it was sent to the agent.")

    @rule(job=all_jobs, host=HOSTS, statuses=st.lists(STATUSES, min_size=1, max_size=4))
    def answer(self, job: str, host: str, statuses: list[ResponseStatus]) -> None:
        """The agents' words: early, doubled, late, in any order, and for jobs of another or of nobody."""
        self.say(host, job, *statuses)

    @rule(host=HOSTS, status=ENDS, how_many=st.integers(1, 3))
    def finish(self, host: str, status: ResponseStatus, how_many: int) -> None:
        """What a good agent says of the commands that it has."""
        for _ in range(how_many):
            for job_id, job in self.model.jobs.items():
                if job.sends and job.place[0] == self.ids[host] and job.status not in TERMINAL_JOB_STATUSES:
                    self.say(host, job_id, ResponseStatus.IN_PROGRESS, status)
                    break

    def pass_time(self, leap: timedelta) -> None:
        """Let the deadlines be judged as they will be after a while."""

        class Later(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) + leap

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deadlines, "datetime", Later)
            at = datetime.now(UTC) + leap
            due = [job_id for job_id, job in self.model.jobs.items() if job.due_at <= at]
            self.run(deadlines.run_once(self.plane))
        for job_id in due:
            [error] = self.sql("SELECT error FROM job WHERE id = ?", job_id)
            self.tell(job_id, JobStatus.FAILED, error)

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        jobs = {job_id: (job.status, job.sends) for job_id, job in self.model.jobs.items()}
        assert {row[0]: row[1:] for row in self.sql("SELECT id, status, attempt FROM job")} == jobs
        rows = self.sql("SELECT id, status, last_error FROM deployment")
        assert {row[0]: row[1:] for row in rows} == self.model.deployments

    @invariant()
    def nothing_contradicts_itself(self) -> None:
        for query in BROKEN:
            assert self.sql(query) == [], query

    @invariant()
    def an_agent_gets_one_command_at_a_time_and_a_project_has_one_change_at_a_time(self) -> None:
        active = {job_id: job for job_id, job in self.model.jobs.items() if job.status not in TERMINAL_JOB_STATUSES}
        for host in self.sessions:
            assert len(self.unacknowledged[host] & active.keys()) <= 1
        changing = [job.place for job in active.values() if job.sends and job.kind.changes_project]
        assert len(changing) == len(set(changing))
        once = [job.sends for job in self.model.jobs.values() if job.place[0] == self.ids.get("go")]
        assert max(once, default=0) <= 1
        assert max((job.sends for job in self.model.jobs.values()), default=0) <= MAX_SENDS

    def teardown(self) -> None:
        try:
            if self.ids:
                self.pass_time(timedelta(hours=25))
                assert all(job.status in TERMINAL_JOB_STATUSES for job in self.model.jobs.values())
                self.the_store_is_as_the_model()
                self.runner.run(self.stack.aclose())
        finally:
            self.runner.close()
            self.directory.cleanup()
