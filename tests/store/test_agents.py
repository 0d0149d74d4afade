"""Agents' rows: who they are stays, what their newest connection says counts."""

from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.core.errors import AgentNotFoundError
from control_plane.store import agents
from control_plane.store.agents import Departure
from control_plane.store.store import Store
from tests.support.access import REACH
from tests.support.store import NOW, add_agent, arrival, completed, deploy, new_id, record, sql

LATER = NOW + timedelta(hours=1)


async def test_an_agent_that_returns_keeps_its_id_and_its_first_day(store: Store) -> None:
    first = await store.write(agents.arrive, arrival("alpha"))
    await store.write(agents.arrive, arrival("beta", connection="b"))
    newer = agents.Arrival(1, "alpha", "192.0.2.9", "2.0.0", "linux-arm64", "resend", "i2", "c2", LATER)
    assert (await store.write(agents.arrive, newer)).agent_id == first.agent_id
    agent = await store.read(agents.get_agent, REACH, first.agent_id)
    assert (agent.created_at, agent.last_seen, agent.status) == (NOW, LATER, "online")
    assert (agent.ip_address, agent.version, agent.architecture) == ("192.0.2.9", "2.0.0", "linux-arm64")
    assert (agent.capabilities, agent.instance, agent.connection_id) == ("resend", "i2", "c2")


async def test_many_agents_that_arrive_in_one_commit_each_get_their_own_id(store: Store) -> None:
    def arrive_all(db, batches):  # type: ignore[no-untyped-def]
        return [agents.arrive(db, batch) for batch in batches]

    arrivals = [arrival(name, connection=name) for name in ("a", "b", "c", "a")]
    ids = [arrived.agent_id for arrived in await store.write(arrive_all, arrivals)]
    assert ids[0] == ids[3]
    assert len(set(ids)) == 3


async def test_the_late_end_of_a_replaced_connection_changes_nothing(store: Store) -> None:
    agent_id = await add_agent(store, connection="old")
    await add_agent(store, connection="new")
    await store.write(agents.depart, Departure(agent_id, "old", LATER))
    agent = await store.read(agents.get_agent, REACH, agent_id)
    assert (agent.status, agent.connection_id, agent.last_seen) == ("online", "new", NOW)
    await store.write(agents.depart, Departure(agent_id, "new", LATER))
    agent = await store.read(agents.get_agent, REACH, agent_id)
    assert (agent.status, agent.connection_id, agent.last_seen) == ("offline", "", LATER)


async def test_a_connection_that_ends_twice_touches_nothing_the_second_time(store: Store) -> None:
    agent_id = await add_agent(store, connection="c1")
    await store.write(agents.depart, Departure(agent_id, "c1", NOW))
    await add_agent(store, connection="c2")
    await store.write(agents.depart, Departure(agent_id, "c1", LATER))
    assert (await store.read(agents.get_agent, REACH, agent_id)).status == "online"


async def test_an_arriving_agent_is_told_whether_work_waits_for_it_or_is_in_flight(store: Store) -> None:
    agent_id = await add_agent(store)
    job, _ = await deploy(store, send=False)
    assert (await store.write(agents.arrive, arrival())).has_work
    assert not (await store.write(agents.arrive, arrival("beta"))).has_work
    other, _ = await deploy(store)
    await record(store, completed(job, None))
    assert (await store.write(agents.arrive, arrival())).has_work
    await record(store, completed(other, agent_id))
    assert not (await store.write(agents.arrive, arrival())).has_work


async def test_a_restart_marks_everybody_offline_and_says_how_many_were_not(store: Store, database: Path) -> None:
    for name in ("alpha", "beta", "gamma"):
        await add_agent(store, name, connection=name)
    await store.write(agents.depart, Departure(2, "beta", LATER))
    assert await store.write(agents.forget_connections, None) == 2
    assert sql(database, "SELECT DISTINCT status, connection_id FROM agent") == [("offline", "")]


async def test_sightings_move_last_seen_of_those_named(store: Store) -> None:
    for name in ("alpha", "beta"):
        await add_agent(store, name, connection=new_id())
    await store.write(agents.see, {1: LATER})
    await store.write(agents.see, {})
    seen = [(await store.read(agents.get_agent, REACH, agent_id)).last_seen for agent_id in (1, 2)]
    assert seen == [LATER, NOW]


async def test_pages_of_agents_are_complete_and_counted(store: Store) -> None:
    for number in range(5):
        await add_agent(store, f"h{number}", connection=f"c{number}")
    await store.write(agents.depart, Departure(3, "c2", LATER))
    page, total = await store.read(agents.list_agents, REACH, labels=(), status="online", after_id=1, limit=2)
    assert ([agent.id for agent in page], total) == ([2, 4], 4)
    page, total = await store.read(agents.list_agents, REACH, labels=(), status=None, after_id=4, limit=2)
    assert ([agent.id for agent in page], total) == ([5], 5)


async def test_an_unknown_agent_is_an_error_that_says_where_to_look(store: Store) -> None:
    with pytest.raises(AgentNotFoundError, match="GET /agents"):
        await store.read(agents.get_agent, REACH, 7)
