"""Recorder: stores what became of jobs, then wakes whoever waits for them. Nothing is told before its commit.

The dispatcher, the results of agents, cancellation and the deadlines all end jobs through here.
"""

from collections import Counter
from collections.abc import Callable

import structlog

from control_plane.bus.base import Bus, Topic
from control_plane.core.states import JOB_MOVES
from control_plane.store.answers import Outcome, record_answers
from control_plane.store.cancellations import KeyedAnswer, record_keyed_answers
from control_plane.store.idempotency import KeyedRequest
from control_plane.store.moves import Answer
from control_plane.store.store import Store

log = structlog.get_logger()


class Recorder:
    """Counts what it records in `counts`, by Outcome's values."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._listeners: list[Callable[[str], None]] = []
        self.counts: Counter[str] = Counter()

    def on_finished(self, listener: Callable[[str], None]) -> None:
        """Call `listener(job_id)` on the event loop after each commit that ends a job."""
        self._listeners.append(listener)

    async def record(self, answer: Answer, request: KeyedRequest | None = None) -> Outcome:
        """Apply one answer and return what became of it once that is committed. Raises what the store raises.

        `request`: that of a user, with a key, which the answer carries out.
        """
        if request is None:
            outcome = await self._store.write(record_answers, answer)
        else:
            outcome = await self._store.write(record_keyed_answers, KeyedAnswer(answer, request))
        self.counts[outcome.value] += 1
        if outcome in {Outcome.FORGED, Outcome.UNKNOWN}:
            log.warning("answer_ignored", outcome=outcome.value, job_id=answer.job_id[:64], agent_id=answer.agent_id)
        if outcome is Outcome.MOVED and not JOB_MOVES[answer.status]:
            for listener in self._listeners:
                listener(answer.job_id)
            self._bus.publish(Topic.JOB_FINISHED, [answer.job_id])
        return outcome
