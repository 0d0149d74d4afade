"""Jobs: sends are counted by compare-and-set, questions are shared, and lists miss nothing."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from control_plane.core.errors import JobNotFoundError, QueueFullError
from control_plane.core.protocol import CommandType
from control_plane.core.states import JobStatus
from control_plane.store.deployments import accept_deployments
from control_plane.store.jobs import (
    Claim,
    NewJob,
    Unclaim,
    add_jobs,
    claim_jobs,
    get_compose_of_job,
    get_job,
    list_agent_jobs,
    list_jobs,
    list_overdue_jobs,
    unclaim_jobs,
)
from control_plane.store.moves import NotMovedError
from control_plane.store.store import Store
from tests.support.access import REACH
from tests.support.store import (
    DEADLINE,
    NOW,
    add_agent,
    claim,
    completed,
    deploy,
    failed,
    new_deployment,
    new_job,
    progress,
    record,
    sql,
)

SENDS = "SELECT attempt, sent_at IS NOT NULL, sent_instance FROM job WHERE id = ?"


@pytest.fixture(autouse=True)
async def agents(store: Store) -> None:
    await add_agent(store, "alpha")
    await add_agent(store, "beta")


@pytest.mark.parametrize("together", [False, True])
async def test_of_two_claims_of_one_send_one_wins(store: Store, database: Path, *, together: bool) -> None:
    job, _ = await deploy(store, send=False)
    other, _ = await deploy(store, "shop", send=False)
    claims = [Claim(job, 0, "x", NOW, DEADLINE), Claim(other, 0, "z", NOW, DEADLINE), Claim(job, 0, "y", NOW, DEADLINE)]
    outcomes: Sequence[object]
    if together:
        outcomes = await asyncio.gather(*(store.write(claim_jobs, one) for one in claims), return_exceptions=True)
    else:
        outcomes = [await _outcome(store, one) for one in claims]
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), NotMovedError]
    assert sql(database, SENDS, job) == [(1, 1, "x")]
    assert sql(database, SENDS, other) == [(1, 1, "z")]


async def _outcome(store: Store, claim_: Claim) -> object:
    try:
        return await store.write(claim_jobs, claim_)
    except NotMovedError as error:
        return error


async def test_a_job_that_is_over_cannot_be_claimed(store: Store, database: Path) -> None:
    job, _ = await deploy(store, send=False)
    await record(store, failed(job, None))
    with pytest.raises(NotMovedError):
        await claim(store, job)
    assert sql(database, SENDS, job) == [(0, 0, "")]


async def test_a_claim_starts_the_clock_and_counts(store: Store) -> None:
    job, _ = await deploy(store, send=False)
    at, deadline = NOW + timedelta(minutes=1), NOW + timedelta(minutes=16)
    await store.write(claim_jobs, Claim(job, 0, "process", at, deadline))
    [listed] = await store.read(list_agent_jobs, 1)
    assert (listed.attempt, listed.sent, listed.sent_instance, listed.deadline_at) == (1, True, "process", deadline)
    assert listed.status is JobStatus.QUEUED


async def test_an_unclaimed_job_waits_again_and_its_send_stays_counted(store: Store, database: Path) -> None:
    job, _ = await deploy(store)
    await store.write(unclaim_jobs, Unclaim(job, 1, NOW, DEADLINE))
    assert sql(database, SENDS, job) == [(1, 0, "")]
    await claim(store, job, attempt=1)
    assert sql(database, SENDS, job) == [(2, 1, "")]


@pytest.mark.parametrize("moved", ["acknowledged", "sent again"])
async def test_a_job_that_has_moved_on_is_not_unclaimed(store: Store, database: Path, moved: str) -> None:
    job, _ = await deploy(store)
    if moved == "acknowledged":
        await record(store, progress(job))
    else:
        await claim(store, job, attempt=1)
    await store.write(unclaim_jobs, Unclaim(job, 1, NOW, DEADLINE))
    assert sql(database, "SELECT sent_at IS NOT NULL FROM job") == [1]


async def add_together(store: Store, *items: NewJob) -> Sequence[str | Exception]:
    def as_one_batch(db: Any, batches: Sequence[Sequence[NewJob]]) -> list[Any]:
        return [add_jobs(db, batch) for batch in batches]

    return await store.write(as_one_batch, items)


async def test_callers_at_the_same_time_share_one_question(store: Store) -> None:
    questions = [
        new_job(CommandType.STATUS),
        new_job(CommandType.STATUS, "shop"),
        new_job(CommandType.STATUS, agent_id=2),
        new_job(CommandType.HEALTH_CHECK, None),
        new_job(CommandType.HEALTH_CHECK, None, 2),
    ]
    first = await add_together(store, *questions)
    again = [new_job(one.kind, one.project_name, one.agent_id) for one in questions * 2]
    assert await add_together(store, *again) == [*first, *first]
    assert await store.write(add_jobs, new_job(CommandType.STATUS)) == first[0]
    assert len(set(first)) == len(questions)


async def test_questions_asked_in_one_batch_are_shared_too(store: Store, database: Path) -> None:
    ids = await add_together(store, *(new_job(CommandType.STATUS) for _ in range(3)))
    assert len(set(ids)) == 1
    assert sql(database, "SELECT id FROM job") == [ids[0]]


async def test_a_question_that_was_answered_is_asked_anew(store: Store) -> None:
    first = await store.write(add_jobs, new_job(CommandType.STATUS))
    await record(store, completed(first, None))
    assert await store.write(add_jobs, new_job(CommandType.STATUS)) != first


async def test_stops_are_never_shared_and_are_bounded_with_deploys(store: Store) -> None:
    stops = [new_job(CommandType.STOP_COMPOSE, max_queued=3) for _ in range(3)]
    await deploy(store, send=False)
    outcomes = await add_together(store, *stops)
    assert [type(outcome) for outcome in outcomes] == [str, str, QueueFullError]
    assert await store.write(add_jobs, new_job(CommandType.STATUS))


async def test_overdue_jobs_are_those_whose_deadline_has_come_longest_overdue_first(store: Store) -> None:
    ids = []
    for minutes in (3, 1, 2, 4):
        new = new_job(CommandType.STOP_COMPOSE, deadline_at=NOW + timedelta(minutes=minutes))
        ids.append(await store.write(add_jobs, new))
    await record(store, completed(ids[2], None))
    due = await store.read(list_overdue_jobs, NOW + timedelta(minutes=3), 10)
    assert [job.id for job in due] == [ids[1], ids[0]]
    assert [job.id for job in await store.read(list_overdue_jobs, NOW + timedelta(hours=1), 2)] == [ids[1], ids[0]]


async def test_an_agents_active_jobs_come_oldest_first_and_no_others(store: Store) -> None:
    jobs = [(await deploy(store, f"p{number}"))[0] for number in range(5)]
    await deploy(store, agent_id=2)
    await record(store, completed(jobs[1]), failed(jobs[2]), progress(jobs[3]))
    listed = await store.read(list_agent_jobs, 1)
    assert [(job.id, job.status) for job in listed] == [
        (jobs[0], JobStatus.QUEUED),
        (jobs[3], JobStatus.IN_PROGRESS),
        (jobs[4], JobStatus.QUEUED),
    ]


async def test_a_deploys_job_leads_to_its_compose_file(store: Store) -> None:
    new = new_deployment(compose_source=b"\xefother", compose_sha256="7" * 64)
    await deploy(store)
    await store.write(accept_deployments, new)
    assert await store.read(get_compose_of_job, new.job_id) == b"\xefother"


async def test_pages_are_complete_and_without_repeats_while_jobs_are_added(store: Store) -> None:
    ids = [(await deploy(store, f"p{number}"))[0] for number in range(7)]
    seen: list[str] = []
    before: str | None = None
    while True:
        page = await store.read(
            list_jobs, REACH, project_name=None, agent_id=None, status=JobStatus.QUEUED, before_id=before, limit=3
        )
        if not page:
            break
        seen += [job.id for job in page]
        before = seen[-1]
        await deploy(store, f"late{len(seen)}")
    assert seen == ids[::-1]


async def test_every_combination_of_filters_lists_exactly_what_it_says(store: Store, database: Path) -> None:
    ends = [completed, failed, progress, None]
    for project, agent, end in product(("web", "shop"), (1, 2), ends):
        job, _ = await deploy(store, project, agent)
        if end:
            await record(store, end(job, agent_id=agent))
    for project, agent, status in product((None, "web", "no"), (None, 1, 9), (None, *JobStatus)):
        page = await store.read(
            list_jobs, REACH, project_name=project, agent_id=agent, status=status, before_id=None, limit=99
        )
        expected = sql(
            database,
            "SELECT id FROM job WHERE project_name = coalesce(?, project_name) AND agent_id = coalesce(?, agent_id)"
            " AND status = coalesce(?, status) ORDER BY id DESC",
            *(project, agent, status),
        )
        assert [job.id for job in page] == expected, (project, agent, status)


async def test_an_unknown_job_is_an_error_that_says_where_to_look(store: Store) -> None:
    with pytest.raises(JobNotFoundError, match="GET /jobs"):
        await store.read(get_job, REACH, "nope")
