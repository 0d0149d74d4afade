"""Dispatcher: takes queued jobs of connected agents to their sockets, in each agent's lane.

Operations offer it what they have committed; what an agent has queued or in flight is read again whenever the
agent connects. A send is counted in the store before anything is written, so that no crash can hide it.
"""

import asyncio
import math
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta

import structlog

from control_plane.core.errors import ControlPlaneError
from control_plane.core.states import FailureReason, JobStatus
from control_plane.fleet.encoding import claim_now, encode_job
from control_plane.fleet.reconcile import MAX_SENDS, Verdict, judge
from control_plane.fleet.recorder import Recorder
from control_plane.fleet.served_agent import Reservation, ServedAgent
from control_plane.fleet.session import AgentSession
from control_plane.fleet.sources import Sources
from control_plane.store import jobs
from control_plane.store.jobs import AgentJob
from control_plane.store.moves import Answer, NotMovedError
from control_plane.store.store import Store

ACKNOWLEDGE_SECONDS = 10
"""Installed agents acknowledge at once. One that has not by then will not, and must not hold up its lane."""
RETRY_SECONDS = 1.0
"""Pause before work that failed on an unavailable store is tried again."""

log = structlog.get_logger()


class Dispatcher:
    """Owns the lanes. All methods are called on the event loop."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder
        self._agents: dict[int, ServedAgent] = {}
        self._lanes: dict[str, ServedAgent] = {}
        """By job id, for an end is told by that alone."""
        self._sources = Sources()
        self._unread: set[int] = set()
        """Agents without a lane that were offered something; they read their queue when they connect."""
        self._late: set[asyncio.Task[None]] = set()
        self._closing = False
        self._ended = asyncio.Event()  # a job of a lane has, or a lane
        recorder.on_finished(self.over)

    def attach(self, session: AgentSession, *, has_work: bool) -> None:
        """Start serving an agent that has connected. `has_work`: jobs of it are in the store."""
        agent = self._agents[session.agent_id] = ServedAgent(session)
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
        for job_id in agent.lane.job_ids():
            self._lanes.pop(job_id, None)
            self._sources.drop(job_id)
        self._ended.set()

    def reserve(self, agent_id: int, job: AgentJob) -> Reservation | None:
        """Take the lane of an agent that could be sent `job` at once; None when the job must wait its turn.

        Saves the usual job a commit. An agent that does not read has no free lane: commands must not pile up for it.
        A reservation must end in `send_reserved`, `release` or `withdraw`.
        """
        agent = self._find(agent_id)
        if agent is None or agent.task is not None or self._closing or not agent.session.socket.writable:
            return None
        if not agent.lane.is_open_for(job):
            return None
        agent.lane.sent(job)
        agent.written_at = math.inf
        self._lanes[job.id] = agent
        return Reservation(job, agent)

    async def send_reserved(self, reservation: Reservation, source: bytes | None = None) -> None:
        """Send a reserved job that is stored as sent. Does not wait for an agent that does not read."""
        agent = reservation.agent
        sending = self._try(agent, self._send_stored(agent, reservation.job, source))
        if agent.session.socket.writable:
            await sending
            return
        self._do_later(agent, sending)

    async def _send_stored(self, agent: ServedAgent, job: AgentJob, source: bytes | None) -> None:
        await self._write(agent, job, await encode_job(self._store, job, source))

    def release(self, reservation: Reservation) -> None:
        """Give a lane back whose job was not stored."""
        self.over(reservation.job.id)

    def withdraw(self, reservation: Reservation) -> None:
        """Give a lane back whose job may be stored as sent by now, and was not sent: if so, it is queued again."""
        agent = reservation.agent
        self._do_later(agent, self._try(agent, self._take_back(agent, reservation.job)))

    async def _try(self, agent: ServedAgent, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except ControlPlaneError as error:
            # The job is stored, and its caller must hear so: it is judged when the agent connects again.
            self._complain(agent, error)

    def _do_later(self, agent: ServedAgent, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"late-{agent.session.agent_id}")
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def offer(self, agent_id: int, job: AgentJob, source: bytes | None = None) -> None:
        """Send a committed job when its turn comes. `source`: the Compose file of a deploy, if at hand."""
        agent = self._find(agent_id)
        if agent is None:
            self._unread.add(agent_id)
            return
        agent.lane.add(job)
        self._lanes[job.id] = agent
        if source is not None:
            self._sources.keep(job.id, source)
        self._run(agent)

    async def ask(self, session: AgentSession, question: AgentJob, *, alone: bool) -> bool:
        """Send a question that no row keeps, if its lane lets it go (`Lane.hold`); whether it was written."""
        agent = self._find(session.agent_id)
        if agent is None or agent.task or self._closing or not agent.lane.hold(question, alone=alone):
            return False
        agent.written_at = asyncio.get_running_loop().time()
        return await agent.session.send(await encode_job(self._store, question))

    def acknowledged(self, session: AgentSession, job_id: str) -> None:
        """Note that an agent has answered for a job."""
        agent = self._agents.get(session.agent_id)
        if agent is not None and agent.lane.acknowledged(job_id):
            self._run(agent)

    def over(self, job_id: str) -> None:
        """Note that a job has ended, so that the next of its project may go."""
        self._sources.drop(job_id)
        agent = self._lanes.pop(job_id, None)
        if agent is not None:
            agent.lane.over(job_id)
            self._run(agent)
            self._ended.set()

    @property
    def awaited_count(self) -> int:
        """How many commands were sent to agents that are connected and have not given their final answers yet."""
        waiting = sum(agent.lane.waiting_count for agent in self._agents.values())
        return max(sum(self._agents.get(one.session.agent_id) is one for one in self._lanes.values()) - waiting, 0)

    async def all_answered(self) -> None:
        """Return once no final answer is awaited."""
        while self.awaited_count:
            self._ended.clear()
            await self._ended.wait()

    def running_jobs(self, session: AgentSession) -> list[str]:
        """Return the ids of deploys and stops that an agent may be running now."""
        agent = self._agents.get(session.agent_id)
        return agent.lane.running_jobs() if agent is not None else []

    async def close(self) -> None:
        """Send nothing more; sends under way are finished."""
        self._closing = True
        tasks = [agent.task for agent in self._agents.values() if agent.task is not None]
        await asyncio.gather(*tasks, *self._late, return_exceptions=True)

    def _run(self, agent: ServedAgent) -> None:
        """Have the agent's lane looked at."""
        if agent.task is None and not self._closing and (agent.must_read or agent.lane.has_waiting):
            agent.task = asyncio.create_task(self._serve(agent), name=f"lane-{agent.session.agent_id}")

    def _find(self, agent_id: int) -> ServedAgent | None:
        """Return a connected agent; one whose connection has ended, and whose end is yet to be told, is not."""
        agent = self._agents.get(agent_id)
        return None if agent is None or agent.session.closed else agent

    def _serves(self, agent: ServedAgent) -> bool:
        return not self._closing and self._find(agent.session.agent_id) is agent

    async def _serve(self, agent: ServedAgent) -> None:
        """Send what may be sent until nothing is left or the session ends; survives a store that is away."""
        try:
            while self._serves(agent):
                try:
                    if agent.must_read:
                        agent.must_read = False
                        await self._read_queue(agent)
                    job = agent.lane.next() if agent.lane.has_waiting and await agent.session.ready() else None
                    if job is None:
                        return
                    await self._send(agent, job)
                except Exception as error:
                    self._complain(agent, error)
                    agent.must_read = True
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            agent.task = None

    def _complain(self, agent: ServedAgent, error: Exception) -> None:
        unknown = not isinstance(error, ControlPlaneError)
        log.warning("dispatch_failed", agent_id=agent.session.agent_id, error=str(error), exc_info=unknown)

    def pass_unacknowledged(self) -> None:
        """Let the lanes go on of agents that have not acknowledged a command in time. Called once a second."""
        latest = asyncio.get_running_loop().time() - ACKNOWLEDGE_SECONDS
        for agent in self._agents.values():
            if (job_id := agent.lane.unacknowledged) and agent.written_at <= latest:
                log.warning("not_acknowledged", agent_id=agent.session.agent_id, job_id=job_id)
                agent.lane.acknowledged(job_id)
                self._run(agent)

    async def _read_queue(self, agent: ServedAgent) -> None:
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

    async def _send(self, agent: ServedAgent, job: AgentJob) -> None:
        if job.attempt >= MAX_SENDS:
            reason = f"The command could not be sent in {MAX_SENDS} attempts; the agent's connection kept breaking."
            await self._fail(job, FailureReason.DISPATCH_FAILED, reason)
            return
        text = await encode_job(self._store, job, self._sources.find(job.id))
        try:
            await self._store.write(jobs.claim_jobs, claim_now(job, agent.session))
        except NotMovedError:
            self.over(job.id)
            return
        agent.lane.sent(job)
        self._sources.drop(job.id)
        await self._write(agent, job, text)

    async def _write(self, agent: ServedAgent, job: AgentJob, text: str) -> None:
        """Write the command of a job that is stored as sent."""
        agent.written_at = asyncio.get_running_loop().time()
        written = await agent.session.send(text)
        self._recorder.sent(agent.session.agent_id, job, written=written)
        if not written:
            await self._take_back(agent, job)

    async def _take_back(self, agent: ServedAgent, job: AgentJob) -> None:
        """Requeue a job that was counted as sent and of which nothing was written.

        One that had been sent before stays sent: the agent may be running it, and its answer must count.
        """
        if not job.sent:
            now = datetime.now(UTC)
            deadline = max(job.deadline_at, now + timedelta(seconds=job.timeout_seconds))
            await self._store.write(jobs.unclaim_jobs, jobs.Unclaim(job.id, job.attempt + 1, now, deadline))
        agent.lane.over(job.id)
        current = self._find(agent.session.agent_id)
        if current is None:
            self._unread.add(agent.session.agent_id)
        else:
            # It may have read the job as sent meanwhile.
            current.lane.over(job.id)
            current.must_read = True
            self._run(current)

    async def _fail(self, job: AgentJob, reason: FailureReason, error: str) -> None:
        answer = Answer(job.id, None, JobStatus.FAILED, datetime.now(UTC), reason=reason, error=error)
        await self._recorder.record(answer)
