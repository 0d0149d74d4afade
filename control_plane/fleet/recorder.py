"""Recorder: stores what became of jobs, then wakes whoever waits for them. Nothing is told before its commit.

The dispatcher, the results of agents, cancellation and the deadlines all end jobs through here.
"""

import time
from collections.abc import Callable

import structlog

from control_plane.bus.base import Bus, Topic
from control_plane.core.audit import AuditEntry
from control_plane.core.metrics import Metrics
from control_plane.core.states import JOB_MOVES
from control_plane.store.answers import Outcome, Recorded, record_answers
from control_plane.store.cancellations import KeyedAnswer, record_keyed_answers
from control_plane.store.idempotency import KeyedRequest
from control_plane.store.jobs import AgentJob
from control_plane.store.moves import Answer, JobFacts
from control_plane.store.store import Store

log = structlog.get_logger()


class Recorder:
    """The one way in which a job ends. Counts sends and ends."""

    def __init__(self, store: Store, bus: Bus, metrics: Metrics) -> None:
        self._store = store
        self._bus = bus
        self._listeners: list[Callable[[str], None]] = []
        self._metrics = metrics

    def on_finished(self, listener: Callable[[str], None]) -> None:
        """Call `listener(job_id)` on the event loop after each commit that ends a job."""
        self._listeners.append(listener)

    def sent(self, agent_id: int, job: AgentJob, *, written: bool) -> None:
        """Count the send of a command, which was `written`, or of which nothing was and which is put back."""
        if not written:
            log.warning("not_sent", agent_id=agent_id, job_id=job.id, attempt=job.attempt + 1)
            self._metrics.commands_not_written.inc()
        elif job.sent:
            self._metrics.commands_resent.inc()
        else:
            # A UUIDv7 begins with the milliseconds of its making (RFC 9562, section 5.7).
            made_at = int(job.id[:8] + job.id[9:13], 16) / 1000
            self._metrics.job_dispatched(job.kind, time.time() - made_at)

    async def record(
        self, answer: Answer, request: KeyedRequest | None = None, audit: AuditEntry | None = None
    ) -> Outcome:
        """Apply one answer and return what became of it once that is committed. Raises what the store raises.

        `request`: that of a user, with a key, which the answer carries out. `audit`: a user's entry of the audit.
        """
        if request is None:
            recorded = await self._store.write(record_answers, answer, audit)
        else:
            recorded = await self._store.write(record_keyed_answers, KeyedAnswer(answer, request), audit)
        outcome = recorded.outcome
        if answer.agent_id is not None:
            self._metrics.answered(_what_became_of(answer, recorded))
        if outcome in {Outcome.FORGED, Outcome.UNKNOWN}:
            log.warning("answer_ignored", outcome=outcome.value, job_id=answer.job_id[:64], agent_id=answer.agent_id)
        if outcome is Outcome.MOVED and not JOB_MOVES[answer.status]:
            for listener in self._listeners:
                listener(answer.job_id)
            self._bus.publish(Topic.JOB_FINISHED, [answer.job_id])
            if recorded.job is not None:
                self._count_end(answer, recorded.job)
        return outcome

    def _count_end(self, answer: Answer, job: JobFacts) -> None:
        seconds = None if job.sent_at is None else (answer.at - job.sent_at).total_seconds()
        reason = answer.reason.value if answer.reason else ""
        self._metrics.job_finished(job.command_type, answer.status.value, reason, seconds)
        tell = log.debug if answer.reason is None else log.info
        tell(
            "job_finished",
            job_id=answer.job_id,
            agent_id=job.agent_id,
            type=job.command_type,
            status=answer.status.value,
            reason=reason,
            seconds=seconds,
        )


def _what_became_of(answer: Answer, recorded: Recorded) -> str:
    """Return the outcome's name; an answer that comes too late and says what is known is a duplicate."""
    if recorded.outcome is Outcome.LATE and recorded.job is not None and recorded.job.status == answer.status:
        return "duplicate"
    return recorded.outcome.value
