"""Dispatcher: takes queued jobs of connected agents to their sockets, in each agent's lane.

Operations offer it what they have committed; what an agent has queued or in flight is read again whenever the
agent connects. A send is counted in the store before anything is written, so that no crash can hide it.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from control_plane.core.compose import to_wire
from control_plane.core.errors import ControlPlaneError
from control_plane.core.protocol import CommandType, encode_command
from control_plane.core.states import FailureReason, JobStatus
from control_plane.fleet.lane import Lane, Waiting
from control_plane.fleet.reconcile import MAX_SENDS, Verdict, judge
from control_plane.fleet.recorder import Recorder
from control_plane.fleet.session import AgentSession
from control_plane.store import jobs
from control_plane.store.answers import Answer
from control_plane.store.jobs import AgentJob, NotMovedError
from control_plane.store.store import Store

ACKNOWLEDGE_SECONDS = 10
"""Installed agents acknowledge at once. One that has not by then will not, and must not hold up its lane."""
RETRY_SECONDS = 1.0
"""Pause before work that failed on an unavailable store is tried again."""

log = structlog.get_logger()


class _Agent:
    """A connected agent's lane and the task that empties it, which lives only while there is work."""

    def __init__(self, session: AgentSession) -> None:
        self.session = session
        self.lane = Lane()
        self.must_read = False
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Dispatcher:
    """Owns the lanes. All methods are called on the event loop."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder
        self._agents: dict[int, _Agent] = {}
        self._lanes: dict[str, _Agent] = {}
        """Job id → agent, for jobs in a lane: an end is told by job id alone."""
        self._unread: set[int] = set()
        """Agents without a lane that were offered something; they read their queue when they connect."""
        self._closing = False
        recorder.on_finished(self.over)

    def attach(self, session: AgentSession, *, has_work: bool) -> None:
        """Start serving an agent that has connected. `has_work`: jobs of it are in the store."""
        agent = self._agents[session.agent_id] = _Agent(session)
        if has_work or session.agent_id in self._unread:
            self._unread.discard(session.agent_id)
            agent.must_read = True
            self._run(agent)

    def detach(self, session: AgentSession) -> None:
        """Stop serving a session; its jobs stay in the store. Another session's lane is left alone."""
        agent = self._agents.get(session.agent_id)
        if agent is None or agent.session is not session:
            return
        del self._agents[session.agent_id]
        self._lanes = {job_id: owner for job_id, owner in self._lanes.items() if owner is not agent}
        agent.wake.set()

    def offer(self, agent_id: int, job: AgentJob, source: bytes | None = None) -> None:
        """Send a committed job when its turn comes. `source`: the Compose file of a deploy, if at hand."""
        agent = self._agents.get(agent_id)
        if agent is None:
            self._unread.add(agent_id)
            return
        agent.lane.add(job, source)
        self._lanes[job.id] = agent
        self._run(agent)

    def acknowledged(self, session: AgentSession, job_id: str) -> None:
        """Note that an agent has answered for a job."""
        agent = self._agents.get(session.agent_id)
        if agent is not None and agent.lane.acknowledged(job_id):
            agent.wake.set()

    def over(self, job_id: str) -> None:
        """Note that a job has ended, so that the next of its project may go."""
        agent = self._lanes.pop(job_id, None)
        if agent is not None:
            agent.lane.over(job_id)
            self._run(agent)

    def running_jobs(self, session: AgentSession) -> list[str]:
        """Return the ids of deploys and stops that an agent may be running now."""
        agent = self._agents.get(session.agent_id)
        return agent.lane.running_jobs() if agent is not None else []

    async def close(self) -> None:
        """Send nothing more; sends under way are finished."""
        self._closing = True
        tasks = [agent.task for agent in self._agents.values() if agent.task is not None]
        for agent in self._agents.values():
            agent.wake.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, agent: _Agent) -> None:
        agent.wake.set()
        if agent.task is None and not self._closing:
            agent.task = asyncio.create_task(self._serve(agent), name=f"lane-{agent.session.agent_id}")

    def _serves(self, agent: _Agent) -> bool:
        return not self._closing and self._agents.get(agent.session.agent_id) is agent

    async def _serve(self, agent: _Agent) -> None:
        """Send what may be sent, until nothing is left or the session ends; survives a store that is away."""
        try:
            while self._serves(agent):
                agent.wake.clear()
                try:
                    if not await self._step(agent):
                        break
                except Exception as error:
                    self._complain(agent, error)
                    agent.must_read = True
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            agent.task = None

    def _complain(self, agent: _Agent, error: Exception) -> None:
        known = isinstance(error, ControlPlaneError)
        log.warning("dispatch_failed", agent_id=agent.session.agent_id, error=str(error), exc_info=not known)

    async def _step(self, agent: _Agent) -> bool:
        """Do one thing for an agent; False when there is nothing to do until the next wake-up."""
        if agent.must_read:
            agent.must_read = False
            await self._read_queue(agent)
        if (unacknowledged := agent.lane.unacknowledged) is not None:
            await self._await_acknowledgement(agent, unacknowledged)
            return True
        waiting = agent.lane.next()
        if waiting is None:
            return agent.wake.is_set()
        await self._send(agent, waiting)
        return True

    async def _await_acknowledgement(self, agent: _Agent, job_id: str) -> None:
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                while agent.lane.unacknowledged == job_id and self._serves(agent):
                    await agent.wake.wait()
                    agent.wake.clear()
        except TimeoutError:
            log.warning("not_acknowledged", agent_id=agent.session.agent_id, job_id=job_id)
            agent.lane.acknowledged(job_id)

    async def _read_queue(self, agent: _Agent) -> None:
        for job in await self._store.read(jobs.list_agent_jobs, agent.session.agent_id):
            verdict = judge(job, agent.session)
            self._lanes[job.id] = agent
            if verdict in {Verdict.SEND, Verdict.SEND_AGAIN}:
                agent.lane.add(job)
                if job.sent:
                    agent.lane.add_running(job)
            elif verdict is Verdict.AWAIT:
                agent.lane.add_running(job)
            else:
                await self._fail(job, FailureReason.AGENT_LOST, "The agent's process ended while it ran the command.")

    async def _send(self, agent: _Agent, waiting: Waiting) -> None:
        job, session = waiting.job, agent.session
        if job.attempt >= MAX_SENDS:
            reason = f"The command could not be sent in {MAX_SENDS} attempts; the agent's connection kept breaking."
            await self._fail(job, FailureReason.DISPATCH_FAILED, reason)
            return
        text = await self._encode(waiting)
        try:
            await self._store.write(jobs.claim_jobs, _claim(job, session))
        except NotMovedError:
            self.over(job.id)
            return
        agent.lane.sent(job)
        try:
            written = await session.send(text)
        except TimeoutError:
            log.warning("agent_does_not_read", agent_id=session.agent_id, job_id=job.id)
            return
        if not written:
            await self._take_back(agent, job)

    async def _take_back(self, agent: _Agent, job: AgentJob) -> None:
        """Requeue a job that was counted as sent and of which nothing was written."""
        now = datetime.now(UTC)
        deadline = max(job.deadline_at, now + timedelta(seconds=job.timeout_seconds))
        await self._store.write(jobs.unclaim_jobs, jobs.Unclaim(job.id, job.attempt + 1, now, deadline))
        agent.lane.over(job.id)
        current = self._agents.get(agent.session.agent_id)
        if current is None:
            self._unread.add(agent.session.agent_id)
        else:
            current.must_read = True
            self._run(current)

    async def _encode(self, waiting: Waiting) -> str:
        job = waiting.job
        payload: dict[str, str] = {}
        if job.kind is not CommandType.HEALTH_CHECK:
            payload["project_name"] = job.project_name or ""
        if job.kind is CommandType.DEPLOY_COMPOSE:
            source = waiting.source
            if source is None:
                source = await self._store.read(jobs.get_compose_of_job, job.id)
            payload["compose_file_base64"] = to_wire(source)
        return encode_command(job.id, job.kind, payload)

    async def _fail(self, job: AgentJob, reason: FailureReason, error: str) -> None:
        answer = Answer(job.id, None, JobStatus.FAILED, datetime.now(UTC), reason=reason, error=error)
        await self._recorder.record(answer)


def _claim(job: AgentJob, session: AgentSession) -> jobs.Claim:
    """Return the claim of a send now. Only a first send starts the clock, and only of what changes a project."""
    now = datetime.now(UTC)
    starts = job.kind.changes_project and not job.sent
    deadline = now + timedelta(seconds=job.timeout_seconds) if starts else job.deadline_at
    return jobs.Claim(job.id, job.attempt, session.identity.instance, now, deadline)
