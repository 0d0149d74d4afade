"""Accepting deploys: all of one in one commit, and who is refused within a batch and across batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from control_plane.core.errors import DeploymentNotFoundError, NameCollisionError, QueueFullError
from control_plane.store.deployments import (
    NewDeployment,
    accept_deployments,
    get_compose_source,
    get_deployment,
    list_deployments,
)
from control_plane.store.store import Store
from tests.support.access import REACH
from tests.support.store import NOW, add_agent, completed, deploy, failed, new_deployment, record, sql, stop

EVERYTHING = ("deployment", "placement", "job", "compose_file")


@pytest.fixture(autouse=True)
async def agents(store: Store) -> None:
    await add_agent(store, "alpha")
    await add_agent(store, "beta")


async def accept_together(store: Store, *items: NewDeployment) -> Sequence[int | Exception]:
    def as_one_batch(db: Any, batches: Sequence[Sequence[NewDeployment]]) -> list[Any]:
        return [accept_deployments(db, batch) for batch in batches]

    return await store.write(as_one_batch, items)


def kinds(outcomes: Sequence[int | Exception]) -> list[str]:
    return ["ok" if isinstance(outcome, int) else type(outcome).__name__ for outcome in outcomes]


def counts(database: Path) -> list[int]:
    return [sql(database, f"SELECT count(*) FROM {table}")[0] for table in EVERYTHING]  # noqa: S608


async def test_an_accepted_deploy_is_stored_with_all_that_belongs_to_it(store: Store, database: Path) -> None:
    new = new_deployment(compose_source=b"services: {web: {image: nginx}}")
    deployment_id = await store.write(accept_deployments, new)
    assert sql(database, "SELECT id, project_name, agent_id, status, compose_file_hash FROM deployment") == [
        (deployment_id, "web", 1, "pending", new.compose_sha256)
    ]
    assert sql(database, "SELECT id, deployment_id, command_type, status, attempt, sent_at FROM job") == [
        (new.job_id, deployment_id, "DEPLOY_COMPOSE", "queued", 0, None)
    ]
    assert sql(
        database, "SELECT folded_name, released, latest_deployment_id, current_deployment_id FROM placement"
    ) == [("web", 0, deployment_id, None)]
    assert await store.read(get_compose_source, REACH, deployment_id) == new.compose_source
    assert (await store.read(get_deployment, REACH, deployment_id)).created_at == NOW


@pytest.mark.parametrize("part", EVERYTHING)
async def test_a_deploy_of_which_one_part_cannot_be_stored_leaves_nothing(
    store: Store, database: Path, part: str
) -> None:
    sql(database, f"CREATE TRIGGER no BEFORE INSERT ON {part} BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(Exception, match="no"):
        await store.write(accept_deployments, new_deployment())
    assert counts(database) == [0, 0, 0, 0]


async def test_a_compose_file_is_kept_once_however_often_it_is_deployed(store: Store, database: Path) -> None:
    await accept_together(store, *(new_deployment(name) for name in ("a", "b", "c")))
    await store.write(accept_deployments, new_deployment("d"))
    await store.write(accept_deployments, new_deployment("e", compose_sha256="6" * 64))
    assert counts(database) == [5, 5, 5, 2]


async def test_a_queue_takes_exactly_its_bound_within_one_batch(store: Store, database: Path) -> None:
    await store.write(accept_deployments, new_deployment("first", max_queued=3))
    batch = [new_deployment(f"p{number}", max_queued=3) for number in range(4)]
    elsewhere = new_deployment("other", 2, max_queued=3)
    outcomes = await accept_together(store, *batch, elsewhere)
    assert kinds(outcomes) == ["ok", "ok", "QueueFullError", "QueueFullError", "ok"]
    assert counts(database)[:3] == [4, 4, 4]


async def test_a_full_queue_has_room_again_when_a_job_was_sent(store: Store) -> None:
    job, _ = await deploy(store, send=False)
    with pytest.raises(QueueFullError, match="try again"):
        await store.write(accept_deployments, new_deployment("shop", max_queued=1))
    await record(store, completed(job, None))
    await store.write(accept_deployments, new_deployment("shop", max_queued=1))


async def test_a_batch_of_which_all_is_refused_stores_nothing(store: Store, database: Path) -> None:
    outcomes = await accept_together(store, *(new_deployment(max_queued=0) for _ in range(3)))
    assert kinds(outcomes) == ["QueueFullError"] * 3
    assert counts(database) == [0, 0, 0, 0]


@pytest.mark.promise("traversal")
async def test_names_that_compose_folds_together_collide_within_a_batch(store: Store, database: Path) -> None:
    batch = [new_deployment(name) for name in ("Web", "web", "_web", "Web")]
    outcomes = await accept_together(store, *batch, new_deployment("web", 2))
    assert kinds(outcomes) == ["ok", "NameCollisionError", "NameCollisionError", "ok", "ok"]
    assert sql(database, "SELECT project_name FROM deployment ORDER BY id") == ["Web", "Web", "web"]


@pytest.mark.promise("traversal")
async def test_names_collide_across_batches_until_the_holder_was_stopped(store: Store) -> None:
    job, deployment = await deploy(store, "Web")
    await record(store, completed(job))
    with pytest.raises(NameCollisionError, match="'web' and 'Web'"):
        await store.write(accept_deployments, new_deployment("web"))
    await record(store, failed(await stop(store, deployment, "Web")))
    with pytest.raises(NameCollisionError):
        await store.write(accept_deployments, new_deployment("web"))
    await record(store, completed(await stop(store, deployment, "Web")))
    await store.write(accept_deployments, new_deployment("web"))
    with pytest.raises(NameCollisionError, match="'Web' and 'web'"):
        await store.write(accept_deployments, new_deployment("Web"))


async def test_a_failed_deploy_does_not_release_its_name(store: Store) -> None:
    job, _ = await deploy(store, "Web")
    await record(store, failed(job))
    with pytest.raises(NameCollisionError):
        await store.write(accept_deployments, new_deployment("web"))


async def test_a_stop_ahead_of_a_waiting_deploy_does_not_release_the_name(store: Store) -> None:
    job, deployment = await deploy(store, "Web")
    await record(store, completed(job))
    stopping = await stop(store, deployment, "Web")
    await store.write(accept_deployments, new_deployment("Web"))
    await record(store, completed(stopping))
    with pytest.raises(NameCollisionError):
        await store.write(accept_deployments, new_deployment("web"))


async def test_ids_are_never_used_again(store: Store, database: Path) -> None:
    _, first = await deploy(store)
    for table in ("job", "placement", "deployment"):
        sql(database, f"DELETE FROM {table}")  # noqa: S608
    _, second = await deploy(store)
    assert second > first
    agent_id = await add_agent(store, "gamma")
    sql(database, "DELETE FROM agent WHERE id = ?", agent_id)
    assert await add_agent(store, "delta") > agent_id


async def test_pages_are_complete_and_without_repeats_while_deployments_are_added(store: Store) -> None:
    ids = [await store.write(accept_deployments, new_deployment(f"p{number}")) for number in range(7)]
    seen: list[int] = []
    before: int | None = None
    while True:
        page = await store.read(
            list_deployments, REACH, project_name=None, agent_id=1, status=None, before_id=before, limit=3
        )
        if not page:
            break
        seen += [deployment.id for deployment in page]
        before = seen[-1]
        await store.write(accept_deployments, new_deployment(f"late{before}"))
    assert seen == ids[::-1]


async def test_an_unknown_deployment_is_an_error_that_says_where_to_look(store: Store) -> None:
    for query in (get_deployment, get_compose_source):
        with pytest.raises(DeploymentNotFoundError, match="GET /deployments"):
            await store.read(query, REACH, 7)
