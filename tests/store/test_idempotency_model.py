"""Deploys, stops and cancellations with keys, at once and over restarts and days, beside a small model of them."""

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from control_plane.core.errors import IdempotencyKeyReusedError, QueueFullError
from control_plane.core.protocol import CommandType
from control_plane.core.states import FailureReason, JobStatus
from control_plane.store.answers import Outcome
from control_plane.store.cancellations import KeyedAnswer, record_keyed_answers
from control_plane.store.deployments import accept_deployments
from control_plane.store.idempotency import AnsweredBeforeError, KeyedRequest, judge_requests
from control_plane.store.jobs import add_jobs
from control_plane.store.moves import Answer
from tests.support.store import NOW, add_agent, new_deployment, new_job, open_store, sql

pytestmark = pytest.mark.promise("5")

KEYS = st.sampled_from(["a", "a", "b", "c"])
BODIES = st.sampled_from(["deploy 1", "deploy 1", "deploy 2", "stop"])
MOST_QUEUED = 4
DAY = timedelta(hours=24)
Sent = tuple[str, str]


class Model:
    """What the store is to do with keys, as plainly as it can be said."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[str, str, datetime]] = {}
        self.queued: list[str] = []

    def expected(self, key: str, body: str, at: datetime) -> str:
        """Return "new", "full", "reused" or the id of the job that the answer must name."""
        if key in self.records and self.records[key][2] > at - DAY:
            earlier, job, _ = self.records[key]
            return job if earlier == body else "reused"
        return "full" if len(self.queued) >= MOST_QUEUED else "new"

    def carried_out(self, key: str, body: str, at: datetime, job: str) -> None:
        self.records[key] = (body, job, at)
        self.queued.append(job)


class Keys(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "control_plane.db"
        self.model = Model()
        self.at = NOW

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    @initialize()
    def begin(self) -> None:
        async def opened() -> Any:
            store = open_store(self.path)
            await add_agent(store)
            await store.write(accept_deployments, new_deployment())
            return store

        self.store = self.run(opened())
        self.model.queued.append("the first")

    @rule(sent=st.lists(st.tuples(KEYS, BODIES), min_size=1, max_size=6))
    def send_at_once(self, sent: list[Sent]) -> None:
        """Of what comes together, deploys and stops are each applied in their order; which kind is first is free."""
        results = self.run(self._send(sent))
        for kind in sorted({body.split()[0] for _, body in sent}, key=[body.split()[0] for _, body in sent].index):
            for (key, body), (job, outcome) in zip(sent, results, strict=True):
                if body.startswith(kind):
                    self._compare(key, body, job, outcome)

    async def _send(self, sent: Sequence[Sent]) -> list[tuple[str, Any]]:
        async def one(key: str, body: str) -> tuple[str, Any]:
            request = KeyedRequest(1, key, body)
            new: Any = new_job(CommandType.STOP_COMPOSE, at=self.at, max_queued=MOST_QUEUED, request=request)
            change: Any = add_jobs
            if body.startswith("deploy"):
                new = new_deployment(at=self.at, max_queued=MOST_QUEUED, request=request)
                change = accept_deployments
            try:
                return new.job_id, await self.store.write(change, new)
            except (AnsweredBeforeError, IdempotencyKeyReusedError, QueueFullError) as refusal:
                return new.job_id, refusal

        return await asyncio.gather(*(one(key, body) for key, body in sent))

    def _compare(self, key: str, body: str, job: str, outcome: Any) -> None:
        expected = self.model.expected(key, body, self.at)
        if expected == "new":
            assert not isinstance(outcome, Exception), outcome
            self.model.carried_out(key, body, self.at, job)
        elif expected in {"full", "reused"}:
            assert isinstance(outcome, QueueFullError if expected == "full" else IdempotencyKeyReusedError)
        else:
            assert isinstance(outcome, AnsweredBeforeError)
            assert outcome.job_id == expected

    @rule(key=KEYS)
    def cancel_the_oldest(self, key: str) -> None:
        queued = [job for job in self.model.queued if job != "the first"]
        if not queued:
            return
        body = f"cancel {queued[0]}"
        expected = self.model.expected(key, body, self.at)
        answer = Answer(queued[0], None, JobStatus.FAILED, self.at, reason=FailureReason.CANCELED, only_unsent=True)
        item = KeyedAnswer(answer, KeyedRequest(1, key, body))
        try:
            recorded: Any = self.run(self.store.write(record_keyed_answers, item))
        except IdempotencyKeyReusedError:
            assert expected == "reused"
        else:
            assert (recorded.outcome, expected in {"new", "full"}) == (Outcome.MOVED, True)
            self.model.records[key] = (body, queued[0], self.at)
            self.model.queued.remove(queued[0])

    @rule(passes=st.sampled_from([timedelta(seconds=1), DAY / 2, DAY - timedelta(microseconds=1), DAY]))
    def time_passes(self, passes: timedelta) -> None:
        self.at += passes

    @rule()
    def restart(self) -> None:
        async def reopened() -> Any:
            await self.store.close()
            return open_store(self.path)

        self.store = self.run(reopened())

    @invariant()
    def a_look_before_tells_what_the_commit_would(self) -> None:
        for key, (body, job, at) in self.model.records.items():
            request = KeyedRequest(1, key, body)
            found: Any = self.run(self.store.read(judge_requests, [request], self.at)).get((1, key))
            assert (found.job_id if found else None) == (job if at > self.at - DAY else None)

    @invariant()
    def every_job_that_was_answered_is_stored_and_no_other(self) -> None:
        waiting = sql(self.path, "SELECT count(*) FROM job WHERE status = 'queued'") if self.model.queued else [0]
        assert waiting == [len(self.model.queued)]

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        self.directory.cleanup()


TestKeys = Keys.TestCase
TestKeys.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
