"""HealthChecks: asks connected agents in turn how they are, and knows which of them answer.

The health loop calls `take_turns` and stores what there is to store; `operations.results` hands answers in.
Checks are no jobs: their ids begin with a word that no job's id has, so no answer to one, however late, moves a job.
"""

import asyncio
import itertools
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

import structlog

from control_plane.core.health import read_health
from control_plane.core.metrics import Metrics
from control_plane.core.protocol import Capability, CommandType, Response, ResponseStatus
from control_plane.core.states import AgentStatus, JobStatus
from control_plane.fleet.dispatcher import Dispatcher
from control_plane.fleet.session import AgentSession
from control_plane.store.checkups import CheckAnswer, Checkup, Standing
from control_plane.store.jobs import AgentJob

ID_PREFIX = "health-"
MISSES = 3
"""Checks in a row that an agent may leave unanswered; with the last of them it is unresponsive."""
LATE_SECONDS = 5.0
"""A turn that this process comes to later than this is passed over: the delay was not the agent's."""
ASKED_AT_ONCE = 8
"""Agents asked before others get their turn of the event loop."""
_GOLDEN = 0.6180339887498949
"""Multiples of the golden ratio, less their whole parts, lie evenly on the interval, wherever one stops (Weyl)."""

log = structlog.get_logger()


def is_check(job_id: str) -> bool:
    """Whether an answer is for a health check, of this process or of one before it, and for no job."""
    return job_id.startswith(ID_PREFIX)


def next_turn(agent_id: int, now: float, interval_seconds: float) -> float:
    """Return when it is an agent's turn after `now`: always at the same point of the interval."""
    phase = agent_id * _GOLDEN % 1 * interval_seconds
    return now + interval_seconds - (now - phase) % interval_seconds


class HealthChecks:
    """All methods are called on the event loop."""

    def __init__(self, dispatcher: Dispatcher, metrics: Metrics, interval_seconds: float) -> None:
        """Ask each agent every `interval_seconds`; 0 asks nobody."""
        self._dispatcher = dispatcher
        self._counters = metrics.health_checks
        self._interval = interval_seconds
        # Another process's ids are never taken for ours.
        self._ids = (
            f"{ID_PREFIX}{process}-{number}" for process in [secrets.token_hex(4)] for number in itertools.count()
        )
        self._answers: dict[int, CheckAnswer] = {}
        self._standings: dict[int, Standing] = {}
        self.unresponsive_count = 0

    async def take_turns(self, sessions: Iterable[AgentSession]) -> None:
        """Judge and ask those of the connected agents whose turn it is; call it several times a second."""
        now = asyncio.get_running_loop().time()
        unresponsive = asked = 0
        for session in sessions:
            pulse = session.pulse
            if pulse.due_at <= now:
                late = now - pulse.due_at > LATE_SECONDS
                pulse.due_at = next_turn(session.agent_id, now, self._interval)
                if not late:
                    self._judge(session)
                    await self._ask(session)
                    asked += 1
                    if asked % ASKED_AT_ONCE == 0:
                        await asyncio.sleep(0)
            elif pulse.missed and pulse.heard:
                self._judge(session)
            unresponsive += pulse.missed >= MISSES
        self.unresponsive_count = unresponsive

    def answered(self, session: AgentSession, response: Response) -> None:
        """Take an answer to a check, of whatever connection and time; those that are not final tell nothing.

        A fragile agent's lane stays closed until the final one, which follows its acknowledgement at once.
        """
        final = response.status.final
        if final or not _is_fragile(session):
            self._dispatcher.acknowledged(session, response.job_id)
        if not final:
            return
        session.pulse.heard = True
        asked_at = session.pulse.asked.pop(response.job_id, None)
        if asked_at is None:
            # Asked on an earlier connection, before a restart, long ago, or by nobody: that it came is all it tells.
            self._counters["late"].inc()
            return
        self._counters["answered"].inc()
        latency = asyncio.get_running_loop().time() - asked_at
        failed = response.status is ResponseStatus.FAILED
        health = read_health(response.data, response.error if failed else "", latency)
        self._answers[session.agent_id] = CheckAnswer(
            session.agent_id, session.connection_id, health, datetime.now(UTC)
        )

    def take_checkup(self) -> Checkup | None:
        """Return what is to be stored, once; None when there is nothing."""
        if not self._answers and not self._standings:
            return None
        checkup = Checkup(self._answers, self._standings)
        self._answers, self._standings = {}, {}
        return checkup

    def keep(self, checkup: Checkup) -> None:
        """Take back what could not be stored; what came meanwhile is newer."""
        self._answers = {**checkup.answers, **self._answers}
        self._standings = {**checkup.standings, **self._standings}

    def _judge(self, session: AgentSession) -> None:
        """Settle what the last turn asked."""
        pulse = session.pulse
        before = pulse.missed
        if pulse.heard:
            pulse.missed = 0
            if before >= MISSES:
                log.info("agent_responsive", agent_id=session.agent_id, hostname=session.identity.hostname)
        elif pulse.owed:
            pulse.missed += 1
            self._counters["missed"].inc()
            if pulse.missed == MISSES:
                log.warning("agent_unresponsive", agent_id=session.agent_id, hostname=session.identity.hostname)
        pulse.owed = pulse.heard = False
        if pulse.missed != before:
            status = AgentStatus.UNRESPONSIVE if pulse.missed >= MISSES else AgentStatus.ONLINE
            self._standings[session.agent_id] = Standing(session.agent_id, session.connection_id, pulse.missed, status)

    async def _ask(self, session: AgentSession) -> None:
        """Ask an agent, unless a command is ahead in its lane or could end while the agent answers."""
        pulse = session.pulse
        check_id = next(self._ids)
        pulse.asked[check_id] = asyncio.get_running_loop().time()
        writable = session.socket.writable
        if not (writable and await self._dispatcher.ask(session, _question(check_id), alone=_is_fragile(session))):
            del pulse.asked[check_id]
            self._counters["skipped"].inc()
            return
        pulse.owed = True
        self._counters["asked"].inc()
        if len(pulse.asked) > MISSES:
            del pulse.asked[next(iter(pulse.asked))]


def _is_fragile(session: AgentSession) -> bool:
    """Whether the agent may be an installed Go agent, which crashes when two of its answers meet."""
    return not session.can(Capability.RESEND)


def _question(check_id: str) -> AgentJob:
    return AgentJob(check_id, CommandType.HEALTH_CHECK, None, JobStatus.QUEUED, 0, 0, datetime.now(UTC), False, "")
