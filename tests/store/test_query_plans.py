"""How SQLite finds things: through an index, and with work that does not grow with the history."""

from collections.abc import Callable
from itertools import product

import pytest
from sqlalchemy import Connection
from sqlmodel import Session

from control_plane.core.protocol import CommandType
from control_plane.core.states import DeploymentStatus, JobStatus
from control_plane.store import agents, deployments, jobs, placements
from tests.support.access import REACH
from tests.support.history import AGENTS, ANYWHERE, LARGE, PAGE, Probe, assert_flat, assert_indexed
from tests.support.store import NOW, arrival, new_deployment, new_job

JOB_FILTERS = list(product(ANYWHERE, [None, *JobStatus]))
DEPLOYMENT_FILTERS = list(product(ANYWHERE, [None, *DeploymentStatus]))


def page_of_jobs(place: tuple[str | None, int | None], status: JobStatus | None) -> Callable[[Session], object]:
    project, agent = place
    return lambda db: jobs.list_jobs(
        db, REACH, project_name=project, agent_id=agent, status=status, before_id="z", limit=PAGE
    )


def page_of_deployments(
    place: tuple[str | None, int | None], status: DeploymentStatus | None
) -> Callable[[Session], object]:
    project, agent = place
    return lambda db: deployments.list_deployments(
        db, REACH, project_name=project, agent_id=agent, status=status, before_id=LARGE + 1, limit=PAGE
    )


@pytest.mark.parametrize(("place", "status"), JOB_FILTERS)
def test_every_page_of_jobs_costs_the_same_after_a_long_history(
    small: Probe, large: Probe, place: tuple[str | None, int | None], status: JobStatus | None
) -> None:
    query = page_of_jobs(place, status)
    assert_indexed(small.plans(query), "job")
    assert_flat(small.cost(query), large.cost(query))


@pytest.mark.parametrize(("place", "status"), DEPLOYMENT_FILTERS)
def test_every_page_of_deployments_costs_the_same_after_a_long_history(
    small: Probe, large: Probe, place: tuple[str | None, int | None], status: DeploymentStatus | None
) -> None:
    query = page_of_deployments(place, status)
    assert_indexed(small.plans(query), "deployment")
    assert_flat(small.cost(query), large.cost(query))


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.IN_PROGRESS, JobStatus.FAILED])
def test_a_page_of_jobs_is_flat_even_when_no_job_is_like_that(small: Probe, large: Probe, status: JobStatus) -> None:
    for place in ((None, 99), ("nothing", None)):
        query = page_of_jobs(place, status)
        assert_flat(small.cost(query), large.cost(query))


@pytest.mark.parametrize(
    "query",
    [
        lambda db: jobs.list_agent_jobs(db, 3),
        lambda db: jobs.list_overdue_jobs(db, NOW, PAGE),
        jobs.count_queued,
        lambda db: jobs.get_job(db, REACH, f"{7:036}"),
        lambda db: jobs.get_compose_of_job(db, f"{7:036}"),
    ],
    ids=["the agent's active jobs", "overdue jobs", "how many wait", "one job", "its Compose file"],
)
def test_what_the_dispatcher_and_the_clock_read_is_flat(
    small: Probe, large: Probe, query: Callable[[Session], object]
) -> None:
    assert_indexed(small.plans(query), "job")
    assert_flat(small.cost(query), large.cost(query))


@pytest.mark.parametrize(
    "query",
    [
        lambda db: placements.find_places(db, REACH, "p3"),
        lambda db: placements.list_projects(db, REACH, after="p3", limit=5),
        lambda db: placements.find_places_or_agents(db, REACH, "nowhere", 64),
    ],
    ids=["places of a project", "projects", "the least loaded agent"],
)
def test_what_placing_reads_is_flat(small: Probe, large: Probe, query: Callable[[Session], object]) -> None:
    assert_flat(small.cost(query), large.cost(query))


@pytest.mark.parametrize(
    "change",
    [
        lambda db: deployments.accept_deployments(
            db, [new_deployment(f"p{n}", n, job_id=f"n{n}") for n in range(1, AGENTS)]
        ),
        lambda db: jobs.add_jobs(db, [new_job(CommandType.STATUS, "p3", 3, job_id="n")]),
        lambda db: jobs.add_jobs(db, [new_job(CommandType.STOP_COMPOSE, "p3", 3, job_id="n", max_queued=1000)]),
        lambda db: agents.arrive(db, [arrival("h3")]),
    ],
    ids=["deploys", "a status", "a stop", "an agent's arrival"],
)
def test_what_is_done_for_every_command_is_flat(
    small: Probe, large: Probe, change: Callable[[Connection], object]
) -> None:
    assert_flat(small.cost_of_change(change), large.cost_of_change(change))
