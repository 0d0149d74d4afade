"""A small organisation, and one that has nothing, pay nothing for the long history of another one beside them."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlmodel import Session

from control_plane.core.access import Reach
from control_plane.core.events import EventKind
from control_plane.core.states import DeploymentStatus, JobStatus
from control_plane.store import agents, deployments, events, jobs, placements, tokens
from control_plane.store.events import WantedEvents
from tests.support.history import AGENTS_BESIDE, LARGE, PAGE, SMALL, Probe, assert_flat, assert_indexed, beside, probe
from tests.support.store import NOW

Query = Callable[[Session], object]

LITTLE, NOTHING = 2, 3
"""The organisations beside the first one, which has all the history."""
REACHES = [Reach(LITTLE), Reach(NOTHING)]
OTHER_AGENT = 4
"""An agent of the first organisation."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    with probe(tmp_path_factory.mktemp("quiet") / "q.db", SMALL) as made:
        beside(made.path, LITTLE)
        yield made


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    with probe(tmp_path_factory.mktemp("busy") / "b.db", LARGE) as made:
        beside(made.path, LITTLE)
        yield made


def assert_alike(quiet: Probe, busy: Probe, query: Query, table: str) -> None:
    assert_indexed(busy.plans(query), table)
    assert_flat(quiet.cost(query), busy.cost(query))


def places(reach: Reach) -> list[tuple[str | None, int | None]]:
    """Return filters: the organisation's own agents and projects, one it has not, and an agent of the first one."""
    return [
        (None, None),
        ("p3", None),
        ("nothing", None),
        (None, OTHER_AGENT + AGENTS_BESIDE),
        (None, OTHER_AGENT),
        ("p3", OTHER_AGENT + AGENTS_BESIDE),
        ("p3", OTHER_AGENT),
    ]


every_reach = pytest.mark.parametrize("reach", REACHES, ids=["little", "nothing"])


@every_reach
@pytest.mark.parametrize("status", [None, *JobStatus])
def test_pages_of_jobs(quiet: Probe, busy: Probe, reach: Reach, status: JobStatus | None) -> None:
    for project, agent in places(reach):

        def page(db: Session, project: str | None = project, agent: int | None = agent) -> object:
            return jobs.list_jobs(
                db, reach, project_name=project, agent_id=agent, status=status, before_id=None, limit=PAGE
            )

        assert_alike(quiet, busy, page, "job")


@every_reach
@pytest.mark.parametrize("status", [None, *DeploymentStatus])
def test_pages_of_deployments(quiet: Probe, busy: Probe, reach: Reach, status: DeploymentStatus | None) -> None:
    for project, agent in places(reach):

        def page(db: Session, project: str | None = project, agent: int | None = agent) -> object:
            return deployments.list_deployments(
                db, reach, project_name=project, agent_id=agent, status=status, before_id=None, limit=PAGE
            )

        assert_alike(quiet, busy, page, "deployment")


@every_reach
@pytest.mark.parametrize("kind", [None, EventKind.DEPLOY_ACCEPTED, EventKind.DEPLOY_FAILED, EventKind.AGENT_CONNECTED])
@pytest.mark.parametrize("since", [None, NOW])
def test_pages_of_events(quiet: Probe, busy: Probe, reach: Reach, kind: EventKind | None, since: object) -> None:
    for project, agent in places(reach):
        wanted = WantedEvents(reach, PAGE, kind, agent, project, since=NOW if since else None)

        def page(db: Session, wanted: WantedEvents = wanted) -> object:
            return events.list_events(db, wanted)

        assert_flat(quiet.cost(page), busy.cost(page))
        if since is None:
            assert_indexed(busy.plans(page), "event")


@every_reach
@pytest.mark.parametrize(
    ("read", "table"),
    [
        (lambda db, reach: agents.list_agents(db, reach, status=None, labels=(), after_id=0, limit=PAGE), "agent"),
        (lambda db, reach: agents.list_agents(db, reach, status="online", labels=(), after_id=0, limit=PAGE), "agent"),
        (lambda db, reach: placements.list_projects(db, reach, after=None, limit=PAGE), "placement"),
        (lambda db, reach: placements.find_places(db, reach, "p3"), "placement"),
        (lambda db, reach: placements.find_places_or_agents(db, reach, "new", 64), "agent"),
        (lambda db, reach: tokens.list_tokens(db, reach, before_id=None, limit=PAGE), "token"),
    ],
    ids=["agents", "online agents", "projects", "places", "the least loaded agent", "tokens"],
)
def test_pages_of_what_there_is_now(
    quiet: Probe, busy: Probe, reach: Reach, read: Callable[[Session, Reach], object], table: str
) -> None:
    assert_alike(quiet, busy, lambda db: read(db, reach), table)


def test_what_runs_elsewhere_is_not_counted_to_place_a_project(busy: Probe) -> None:
    def place(db: Session) -> object:
        return placements.find_places_or_agents(db, Reach(LITTLE), "new", 64)

    before = busy.cost(place)
    with closing(sqlite3.connect(busy.path)) as connection:
        connection.execute("UPDATE deployment SET status = 'running' WHERE id <= 20000")
        connection.commit()
    assert_flat(before, busy.cost(place))


def test_the_other_organisation_has_what_it_is_said_to_have(quiet: Probe) -> None:
    with Session(quiet.engine) as db:
        rows = jobs.list_jobs(
            db, Reach(LITTLE), project_name=None, agent_id=None, status=None, before_id=None, limit=2 * SMALL
        )
        assert len(rows) == SMALL
        assert {row.organization_id for row in rows} == {LITTLE}
