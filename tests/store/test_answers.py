"""What answers do to jobs, deployments and placements, one case each; the state machine is in its own file."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.core.logs import MAX_LOG_BYTES
from control_plane.core.protocol import CommandType
from control_plane.core.states import FailureReason, JobStatus
from control_plane.store.answers import MAX_PIECES, Outcome
from control_plane.store.jobs import add_jobs, get_job
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
    new_job,
    progress,
    record,
    record_together,
    sql,
    stop,
)

DEPLOYMENTS = "SELECT status FROM deployment ORDER BY id"
CURRENT = "SELECT current_deployment_id FROM placement"


@pytest.fixture(autouse=True)
async def agents(store: Store) -> None:
    await add_agent(store, "alpha")
    await add_agent(store, "beta")


async def test_a_completed_deploy_runs_and_is_the_current_one(store: Store, database: Path) -> None:
    job, deployment = await deploy(store)
    assert await record(store, completed(job, logs="Started\n")) == [Outcome.MOVED]
    assert sql(database, "SELECT status, last_logs, last_error FROM deployment") == [("running", "Started\n", None)]
    assert sql(database, CURRENT) == [deployment]
    assert sql(database, "SELECT status, finished_at IS NOT NULL FROM job") == [("completed", 1)]


async def test_a_failed_deploy_fails_and_leaves_the_one_before_it_running(store: Store, database: Path) -> None:
    first, deployment = await deploy(store)
    second, _ = await deploy(store)
    await record(store, completed(first), failed(second, error="no such image"))
    assert sql(database, "SELECT status, last_error FROM deployment") == [
        ("running", None),
        ("failed", "no such image"),
    ]
    assert sql(database, CURRENT) == [deployment]
    assert sql(database, "SELECT reason, error FROM job WHERE id = ?", second) == [("agent_error", "no such image")]


async def test_the_newer_deploy_that_runs_supersedes_the_older(store: Store, database: Path) -> None:
    jobs = [await deploy(store) for _ in range(3)]
    await record(store, *(completed(job) for job, _ in jobs))
    assert sql(database, DEPLOYMENTS) == ["superseded", "superseded", "running"]
    assert sql(database, CURRENT) == [jobs[-1][1]]


async def test_deploys_of_other_projects_and_agents_are_left_alone(store: Store, database: Path) -> None:
    places = [("web", 1), ("web", 2), ("shop", 1)]
    jobs = [(await deploy(store, project, agent), agent) for project, agent in places]
    await record(store, *(completed(job, agent) for (job, _), agent in jobs))
    assert sql(database, DEPLOYMENTS) == ["running"] * 3


@pytest.mark.parametrize("together", [False, True])
async def test_of_two_deploys_that_complete_the_last_to_complete_is_what_runs(
    store: Store, database: Path, *, together: bool
) -> None:
    first, deployment = await deploy(store)
    second, _ = await deploy(store)
    await (record_together if together else record)(store, completed(second), completed(first))
    assert sql(database, DEPLOYMENTS) == ["running", "superseded"]
    assert sql(database, CURRENT) == [deployment]


@pytest.mark.parametrize("together", [False, True])
async def test_a_deploy_that_completes_after_a_stop_runs(store: Store, database: Path, *, together: bool) -> None:
    first, deployment = await deploy(store)
    await record(store, completed(first))
    stopping = await stop(store, deployment)
    second, current = await deploy(store)
    await (record_together if together else record)(store, completed(stopping), completed(second))
    assert sql(database, DEPLOYMENTS) == ["stopped", "running"]
    assert sql(database, "SELECT current_deployment_id, released FROM placement") == [(current, 0)]


async def test_a_stop_ends_what_runs_and_releases_the_name(store: Store, database: Path) -> None:
    job, deployment = await deploy(store)
    await record(store, completed(job))
    await record(store, completed(await stop(store, deployment), logs="Removed"))
    assert sql(database, "SELECT status, last_logs FROM deployment") == [("stopped", "Removed")]
    assert sql(database, "SELECT current_deployment_id, released FROM placement") == [(None, 1)]


async def test_a_failed_stop_leaves_it_running_and_says_why(store: Store, database: Path) -> None:
    job, deployment = await deploy(store)
    await record(store, completed(job))
    await record(store, failed(await stop(store, deployment), error="daemon is away", logs="tried"))
    assert sql(database, "SELECT status, last_error, last_logs FROM deployment") == [
        ("running", "daemon is away", "tried")
    ]
    assert sql(database, "SELECT current_deployment_id, released FROM placement") == [(deployment, 0)]


async def test_a_failed_stop_is_noted_on_what_runs_by_then(store: Store, database: Path) -> None:
    first, deployment = await deploy(store)
    await record(store, completed(first))
    stopping = await stop(store, deployment)
    second, _ = await deploy(store)
    await record(store, completed(second), failed(stopping))
    assert sql(database, "SELECT status, last_error FROM deployment ORDER BY id") == [
        ("superseded", None),
        ("running", "exit 1"),
    ]


async def test_a_failed_stop_that_said_nothing_leaves_the_deployments_last_logs(store: Store, database: Path) -> None:
    job, deployment = await deploy(store)
    await record(store, completed(job, logs="Started"))
    await record(store, failed(await stop(store, deployment), agent_id=None))
    assert sql(database, "SELECT last_logs FROM deployment") == ["Started"]


async def test_the_first_final_answer_wins(store: Store, database: Path) -> None:
    job, _ = await deploy(store)
    late = [failed(job, logs="late"), progress(job, "late"), completed(job, logs="late"), failed(job, agent_id=None)]
    outcomes = await record(store, completed(job, logs="first"), *late)
    assert outcomes == [Outcome.MOVED] + [Outcome.LATE] * 4
    assert sql(database, "SELECT status, reason, logs, error FROM job") == [("completed", None, "first", None)]
    assert sql(database, DEPLOYMENTS) == ["running"]


async def test_several_answers_for_one_job_in_one_commit_count_in_their_order(store: Store, database: Path) -> None:
    job, _ = await deploy(store)
    answers = (progress(job, "a"), progress(job, "b"), completed(job, logs="c"), failed(job))
    outcomes = await record_together(store, *answers)
    assert outcomes == [Outcome.MOVED, Outcome.LOGGED, Outcome.MOVED, Outcome.LATE]
    assert sql(database, "SELECT status, logs FROM job") == [("completed", "a\nb\nc")]


async def test_only_the_agent_that_was_sent_the_job_may_answer_for_it(store: Store, database: Path) -> None:
    sent, _ = await deploy(store)
    unsent, _ = await deploy(store, "shop", send=False)
    answers = (completed(sent, 2), completed(unsent, 1), completed("no such job", 1))
    assert await record(store, *answers) == [Outcome.FORGED, Outcome.FORGED, Outcome.UNKNOWN]
    assert sql(database, "SELECT DISTINCT status, logs FROM job") == [("queued", "")]
    assert sql(database, DEPLOYMENTS) == ["pending", "pending"]


async def test_a_job_is_canceled_only_before_it_is_sent(store: Store) -> None:
    sent, _ = await deploy(store)
    unsent, _ = await deploy(store, "shop", send=False)
    cancels = [failed(job, None, reason=FailureReason.CANCELED, only_unsent=True) for job in (sent, unsent)]
    assert await record(store, *cancels) == [Outcome.HELD_BACK, Outcome.MOVED]


async def test_a_deadline_ends_a_job_only_once_it_has_passed(store: Store) -> None:
    job, _ = await deploy(store)
    early = failed(job, None, at=DEADLINE - timedelta(microseconds=1), only_if_due=True)
    due = failed(job, None, at=DEADLINE, only_if_due=True)
    assert await record(store, early, due) == [Outcome.HELD_BACK, Outcome.MOVED]


async def test_progress_is_readable_while_it_runs_and_merged_when_it_is_over(store: Store, database: Path) -> None:
    job, _ = await deploy(store)
    for text in ("pulling", "pulled\n", "starting"):
        await record(store, progress(job, text))
    running = await store.read(get_job, REACH, job)
    assert (running.status, running.logs) == (JobStatus.IN_PROGRESS, "pulling\npulled\nstarting")
    await record(store, completed(job, logs="done"))
    assert sql(database, "SELECT logs FROM job") == ["pulling\npulled\nstarting\ndone"]
    assert sql(database, "SELECT count(*) FROM job_log") == [0]


@pytest.mark.parametrize("end", [False, True])
async def test_a_whole_log_replaces_what_was_streamed(store: Store, database: Path, *, end: bool) -> None:
    job, _ = await deploy(store)
    answer = completed(job, logs="all\nof it") if end else progress(job, "all\nof it")
    await record(store, progress(job, "all"), progress(job, "of"), replace(answer, whole_log=True))
    assert (await store.read(get_job, REACH, job)).logs == "all\nof it"
    await record(store, progress(job, "more"))
    assert (await store.read(get_job, REACH, job)).logs == ("all\nof it" if end else "all\nof it\nmore")
    assert sql(database, "SELECT status FROM job") == ["completed" if end else "in_progress"]


async def test_a_long_run_of_progress_is_kept_in_few_pieces_and_loses_nothing(store: Store, database: Path) -> None:
    job, _ = await deploy(store)
    lines = [f"line {number}\n" for number in range(3 * MAX_PIECES)]
    for line in lines:
        await record(store, progress(job, line))
        assert sql(database, "SELECT count(*) <= ? FROM job_log", MAX_PIECES) == [1]
    assert (await store.read(get_job, REACH, job)).logs == "".join(lines)
    await record(store, completed(job))
    assert sql(database, "SELECT logs FROM job") == ["".join(lines)]


async def test_a_log_keeps_one_mebibyte_with_its_middle_cut_while_it_runs_and_after(
    store: Store, database: Path
) -> None:
    job, _ = await deploy(store)
    block = ("x" * 63 + "\n") * 8192
    for text in ("first line\n", *[block] * 5, "last line\n"):
        await record(store, progress(job, text))
    _has_both_ends_in_one_mebibyte((await store.read(get_job, REACH, job)).logs)
    assert sql(database, "SELECT sum(length(text)) < ? FROM job_log", 3 * MAX_LOG_BYTES) == [1]
    await record(store, completed(job))
    _has_both_ends_in_one_mebibyte(sql(database, "SELECT logs FROM job")[0])


def _has_both_ends_in_one_mebibyte(log: str) -> None:
    assert len(log.encode()) <= MAX_LOG_BYTES
    assert log.startswith("first line\n")
    assert log.endswith("last line\n")
    assert "bytes cut" in log


async def test_the_answer_to_a_question_stands_without_the_acknowledgement(store: Store, database: Path) -> None:
    await deploy(store)
    question = new_job(CommandType.STATUS)
    await store.write(add_jobs, question)
    await claim(store, question.job_id)
    await record(
        store,
        progress(question.job_id, "Command received, processing..."),
        progress(question.job_id, "still"),
        completed(question.job_id, logs="NAME  STATE", data=[{"Name": "web"}]),
    )
    job = await store.read(get_job, REACH, question.job_id)
    assert (job.status, job.logs, job.data) == (JobStatus.COMPLETED, "NAME  STATE", [{"Name": "web"}])
    assert sql(database, "SELECT status FROM deployment") == ["pending"]


async def test_text_that_no_terminal_would_like_is_stored_and_read_back(store: Store) -> None:
    job, _ = await deploy(store)
    odd = "NUL\x00 \u2028 \U0001f680 \ufffd"
    await record(store, completed(job, logs=odd, error=odd, data={"k": [odd, 2**80, 1e308, None]}, at=NOW))
    stored = await store.read(get_job, REACH, job)
    assert (stored.logs, stored.error, stored.data) == (odd, odd, {"k": [odd, 2**80, 1e308, None]})
