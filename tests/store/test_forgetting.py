"""What is left of an agent that was taken from the fleet: its history, and nothing that waits for it."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from control_plane.core.access import DEFAULT_REACH, Reach
from control_plane.core.errors import AgentConnectedError, AgentNotFoundError
from control_plane.core.protocol import CommandType
from control_plane.core.tokens import TokenKind, digest_of
from control_plane.store import agent_changes, agents, deployments, events, jobs
from control_plane.store.agent_changes import Binding, Forgetting
from control_plane.store.deployments import accept_deployments
from control_plane.store.events import WantedEvents
from control_plane.store.inspection import find_contradictions
from control_plane.store.jobs import add_jobs
from control_plane.store.store import Store
from control_plane.store.tokens import list_changed_tokens
from tests.support.store import (
    BROKEN,
    NOW,
    add_agent,
    arrival,
    completed,
    deploy,
    new_deployment,
    new_job,
    progress,
    record,
    sql,
)

FORGET = Forgetting(DEFAULT_REACH, 1, NOW)


async def busy_agent(store: Store) -> list[str]:
    """Make an agent with a project that runs, one that is deployed anew, and one that waits; returns what is active."""
    await add_agent(store)
    running, _ = await deploy(store, "running")
    await record(store, completed(running))
    under_way, _ = await deploy(store, "under-way")
    await record(store, progress(under_way, "Pulling\n"))
    waiting, _ = await deploy(store, "running", send=False)
    question = new_job(CommandType.STATUS, "running")
    await store.write(add_jobs, question)
    return [under_way, waiting, question.job_id]


async def leave(store: Store) -> None:
    await store.write(agents.depart, agents.Departure(1, "c1", NOW))


async def test_what_is_under_way_fails_and_what_ran_is_not_said_to_run(store: Store, database: Path) -> None:
    active = await busy_agent(store)
    await leave(store)
    assert sorted(await store.write(agent_changes.forget_agents, FORGET)) == sorted(active)
    assert set(sql(database, "SELECT status, reason FROM job WHERE id != (SELECT min(id) FROM job)")) == {
        ("failed", "agent_lost")
    }
    assert sql(database, "SELECT project_name, status FROM deployment ORDER BY id") == [
        ("running", "stopped"),
        ("under-way", "failed"),
        ("running", "failed"),
    ]
    assert sql(database, "SELECT * FROM placement") == []
    assert [row for query in BROKEN for row in sql(database, query)] == []
    await store.close()
    with closing(sqlite3.connect(database)) as connection:
        contradictions = [each.what for each in find_contradictions(connection) if "SHA-256" not in each.what]
    assert contradictions == []


async def test_only_one_that_is_offline_and_within_reach_can_be_forgotten(store: Store) -> None:
    await busy_agent(store)
    with pytest.raises(AgentConnectedError):
        await store.write(agent_changes.forget_agents, FORGET)
    await leave(store)
    for reach in (Reach(2), Reach(1, labels=(("env", "prod"),))):
        with pytest.raises(AgentNotFoundError):
            await store.write(agent_changes.forget_agents, replace(FORGET, reach=reach))
    await store.write(agent_changes.forget_agents, FORGET)
    with pytest.raises(AgentNotFoundError):
        await store.write(agent_changes.forget_agents, FORGET)


async def test_its_tokens_end_and_a_host_of_its_name_is_another_agent_that_nothing_binds(store: Store) -> None:
    await add_agent(store)
    await store.write(agent_changes.bind_agents, Binding(DEFAULT_REACH, 1, NOW, digest_of("own").hex()))
    await leave(store)
    await store.write(agent_changes.forget_agents, FORGET)
    [token] = await store.read(list_changed_tokens, 0, 10)
    assert (token.kind, token.revoked) == (TokenKind.AGENT, True)
    assert await store.write(agents.arrive, arrival()) == agents.Arrived(2, False, None)
    row = await store.read(agents.get_agent, DEFAULT_REACH, 2)
    assert (row.hostname, row.bound) == ("alpha", False)


async def test_a_deploy_that_was_placed_just_before_is_refused(store: Store, database: Path) -> None:
    await add_agent(store)
    await leave(store)
    await store.write(agent_changes.forget_agents, FORGET)
    with pytest.raises(AgentNotFoundError):
        await store.write(accept_deployments, new_deployment("web"))
    for kind in (CommandType.STOP_COMPOSE, CommandType.STATUS, CommandType.HEALTH_CHECK):
        with pytest.raises(AgentNotFoundError):
            await store.write(add_jobs, new_job(kind, "web"))
    assert (
        sql(database, "SELECT id FROM deployment UNION SELECT id FROM job UNION SELECT agent_id FROM placement") == []
    )


async def test_its_history_is_found_by_project_and_agent(store: Store) -> None:
    await busy_agent(store)
    await leave(store)
    await store.write(agent_changes.forget_agents, FORGET)
    where: dict[str, Any] = {"project_name": "running", "agent_id": 1, "status": None, "before_id": None, "limit": 10}
    found = await store.read(deployments.list_deployments, DEFAULT_REACH, **where)
    assert [row.id for row in found] == [3, 1]
    assert len(await store.read(jobs.list_jobs, DEFAULT_REACH, **where)) == 3
    wanted = WantedEvents(DEFAULT_REACH, 10, agent_id=1, project_name="running")
    assert len(await store.read(events.list_events, wanted)) == 4
    other = {**where, "project_name": "never-there"}
    assert await store.read(deployments.list_deployments, DEFAULT_REACH, **other) == []
    assert await store.read(deployments.list_deployments, Reach(2), **where) == []


async def test_a_late_answer_of_it_changes_nothing(store: Store, database: Path) -> None:
    active = await busy_agent(store)
    await leave(store)
    await store.write(agent_changes.forget_agents, FORGET)
    before = sql(database, "SELECT * FROM job")
    later = NOW + timedelta(minutes=1)
    await record(store, *(completed(job_id, at=later) for job_id in active))
    assert sql(database, "SELECT * FROM job") == before
