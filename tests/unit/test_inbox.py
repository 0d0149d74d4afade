"""Answers wait in order, merged and bounded, until they are stored, however long the store is away."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.errors import StorageFullError, StoreUnavailableError
from control_plane.core.logs import MAX_LOG_BYTES
from control_plane.core.states import JobStatus
from control_plane.operations import inbox as inbox_module
from control_plane.operations.inbox import Inboxes, InboxFullError, merge
from control_plane.store.moves import Answer

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FINAL = (JobStatus.COMPLETED, JobStatus.FAILED)


def answer(job: str = "j", logs: str = "", status: JobStatus = JobStatus.IN_PROGRESS, **more: Any) -> Answer:
    return replace(Answer(job, 1, status, NOW, logs=logs), **more)


def saying(one: Answer, member: str, text: str) -> Answer:
    changes: dict[str, Any] = {member: text}
    return replace(one, **changes)


class Records:
    """Stores what it is given once it is open, and fails as often as it is told to."""

    def __init__(self, *failures: Exception) -> None:
        self.stored: list[Answer] = []
        self.tried = 0
        self.failures = list(failures)
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    async def __call__(self, one: Answer) -> None:
        self.tried += 1
        self.asked.set()
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.stored.append(one)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(one.job_id, one.logs) for one in self.stored]


async def test_what_is_put_is_stored() -> None:
    records = Records()
    inboxes = Inboxes(records)
    inboxes.put(1, answer("a", "x"))
    inboxes.put(2, answer("b", "y"))
    await inboxes.drain()
    assert records.said == [("a", "x"), ("b", "y")]


async def test_answers_for_one_job_that_wait_become_one_and_those_for_others_stay_apart() -> None:
    records = Records()
    records.open.clear()
    inboxes = Inboxes(records)
    inboxes.put(1, answer("a", "1"))
    await records.asked.wait()
    for job, logs in (("a", "2"), ("b", "x"), ("a", "3")):
        inboxes.put(1, answer(job, logs))
    inboxes.put(1, answer("a", "4", JobStatus.COMPLETED))
    records.open.set()
    await inboxes.drain()
    assert records.said == [("a", "1"), ("a", "2\n3\n4"), ("b", "x")]
    assert records.stored[1].status is JobStatus.COMPLETED


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), StorageFullError("full")])
async def test_answers_outlast_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(inbox_module, "RETRY_SECONDS", 0)
    records = Records(*[error] * 20)
    inboxes = Inboxes(records)
    inboxes.put(1, answer("a", "kept"))
    await inboxes.drain()
    assert records.said == [("a", "kept")]
    assert records.tried == 21


async def test_an_answer_that_cannot_be_stored_at_all_does_not_hold_up_the_next() -> None:
    records = Records(ValueError("a fault of ours"))
    inboxes = Inboxes(records)
    inboxes.put(1, answer("a"))
    await inboxes.drain()
    inboxes.put(1, answer("b", "x"))
    await inboxes.drain()
    assert records.said == [("b", "x")]


async def test_one_agents_full_inbox_refuses_it_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING_JOBS", 2)
    records = Records()
    records.open.clear()
    inboxes = Inboxes(records)
    for job in ("a", "b"):
        inboxes.put(1, answer(job))
    with pytest.raises(InboxFullError):
        inboxes.put(1, answer("c"))
    inboxes.put(1, answer("a", "more of what waits already"))
    inboxes.put(2, answer("c"))
    records.open.set()
    await inboxes.drain()
    assert sorted(job for job, _ in records.said) == ["a", "b", "c"]


@pytest.mark.parametrize("member", ["logs", "error", "data"])
async def test_what_one_agent_may_have_waiting_is_bounded_in_characters(
    monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING_CHARACTERS", 1000)
    records = Records()
    records.open.clear()
    inboxes = Inboxes(records)
    inboxes.put(1, saying(answer("a"), member, "x" * 900))
    with pytest.raises(InboxFullError):
        inboxes.put(1, saying(answer("b"), member, "x" * 200))
    records.open.set()
    await inboxes.drain()
    inboxes.put(1, saying(answer("b"), member, "x" * 200))
    await inboxes.drain()
    assert [one.job_id for one in records.stored] == ["a", "b"]


async def test_a_long_log_takes_no_more_room_than_is_kept_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING_CHARACTERS", 3 * MAX_LOG_BYTES)
    records = Records()
    records.open.clear()
    inboxes = Inboxes(records)
    for _ in range(10):
        inboxes.put(1, answer("a", "x" * (MAX_LOG_BYTES // 2)))
    records.open.set()
    await inboxes.drain()
    assert len(records.stored[-1].logs) <= MAX_LOG_BYTES


ANSWERS = st.lists(
    st.builds(
        answer,
        logs=st.text("ab\n", max_size=4),
        status=st.sampled_from([JobStatus.IN_PROGRESS, JobStatus.IN_PROGRESS, *FINAL]),
        whole_log=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(ANSWERS)
def test_merging_keeps_the_first_end_and_everything_said_since_the_last_whole_log(answers: list[Answer]) -> None:
    heard = answers[: next((n + 1 for n, one in enumerate(answers) if one.status in FINAL), len(answers))]
    merged = answers[0]
    for later in answers[1:]:
        merged = merge(merged, later)
    since = max((number for number, one in enumerate(heard) if one.whole_log), default=0)
    assert merged.status is heard[-1].status
    assert merged.whole_log == any(one.whole_log for one in heard)
    assert merged.logs.replace("\n", "") == "".join(one.logs for one in heard[since:]).replace("\n", "")
