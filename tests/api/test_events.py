"""Events: what happened as users list it, narrowed by kind, agent, project and time, page by page."""

from typing import Any

import pytest

from control_plane.core.events import EventKind
from tests.support.app import Site
from tests.support.go_agent import GoAgent
from tests.support.problem_app import checked


async def listed(site: Site, **filters: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = (await site.get("/events", limit=1000, **filters))["events"]
    return events


async def test_a_deploy_and_its_stop_are_told_newest_first(site: Site, agent: GoAgent) -> None:
    deploy = await site.deploy("web")
    stop = await site.post("/projects/web/stop", wait=30)
    told = [(event["kind"], event["job_id"]) for event in await listed(site, project="web")]
    assert told == [
        ("stop_completed", stop["job_id"]),
        ("stop_accepted", stop["job_id"]),
        ("deploy_completed", deploy["job_id"]),
        ("deploy_accepted", deploy["job_id"]),
    ]
    everything = [event["kind"] for event in await listed(site)]
    assert everything[4:] == ["agent_connected", "control_plane_started"]


async def test_an_end_is_told_as_soon_as_the_answer_is(site: Site, agent: GoAgent) -> None:
    agent.fail("web", "no such image")
    answer = await site.deploy("web")
    [failed] = await listed(site, kind="deploy_failed")
    assert (failed["job_id"], failed["deployment_id"]) == (answer["job_id"], answer["deployment_id"])
    assert failed["message"].endswith("failed (agent_error): no such image")
    assert failed["details"] == {"reason": "agent_error"}


async def test_a_deploy_that_is_taken_back_is_told_as_canceled(site: Site) -> None:
    agent = await site.offline_agent()
    queued = await site.deploy("web", wait=0, agent_id=await site.id_of(agent), when_offline="queue")
    await site.post(f"/jobs/{queued['job_id']}/cancel")
    kinds = [event["kind"] for event in await listed(site)]
    assert kinds[:4] == ["deploy_canceled", "deploy_accepted", "agent_disconnected", "agent_connected"]


async def test_filters_can_be_combined(site: Site, agent: GoAgent) -> None:
    first, second = await site.id_of(agent), await site.id_of(await site.agent("host-2"))
    for project, place in (("web", first), ("web", second), ("api", second)):
        await site.deploy(project, agent_id=place)
    everything = await listed(site)
    filters = {"kind": "deploy_completed", "agent_id": second, "project": "web"}
    names = {"kind": "kind", "agent_id": "agent_id", "project": "project_name"}
    for chosen in range(8):
        some = {name: value for bit, (name, value) in enumerate(filters.items()) if chosen & 1 << bit}
        expected = [event for event in everything if all(event[names[name]] == some[name] for name in some)]
        assert await listed(site, **some) == expected, some
    for kind in EventKind:
        assert await listed(site, kind=kind.value) == [event for event in everything if event["kind"] == kind]
    assert await listed(site, project="api", agent_id=first) == await listed(site, agent_id=99) == []


async def test_a_period_is_cut_out_of_any_list(site: Site, agent: GoAgent) -> None:
    for _ in range(3):
        await site.deploy("web")
    for some in ({}, {"project": "web"}, {"agent_id": 1, "kind": "deploy_accepted"}):
        everything = await listed(site, **some)
        since, until = everything[-2]["at"], everything[0]["at"]
        expected = [event for event in everything if since <= event["at"] < until]
        assert expected
        assert await listed(site, since=since, until=until, **some) == expected


@pytest.mark.parametrize(
    "written", ["2020-01-01", "2020-01-01T00:00:00Z", "2020-01-01T01:00:00+01:00", "20200101T000000"]
)
async def test_a_time_can_be_written_in_every_usual_way(site: Site, written: str) -> None:
    assert await listed(site, since=written) == await listed(site)
    assert await listed(site, until=written) == []
    unescaped = await site.client.get(f"/events?since={written}")
    assert unescaped.status_code == 200


async def test_pages_hold_each_event_once_though_new_ones_arrive(site: Site, agent: GoAgent) -> None:
    for number in range(3):
        await site.deploy(f"p{number}")
    for some in ({}, {"agent_id": 1}):
        old = await listed(site, **some)
        page = await site.get("/events", limit=2, **some)
        seen = list(page["events"])
        while page["next_cursor"]:
            await site.deploy(f"late-{len(seen)}")
            page = await site.get("/events", limit=2, cursor=page["next_cursor"], **some)
            seen += page["events"]
        assert seen == old


@pytest.mark.parametrize(
    ("params", "field", "detail"),
    [
        ({"since": "yesterday"}, "since", "must be a time such as 2026"),
        ({"until": "1700000000"}, "until", "must be a time such as 2026"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since", "must be a time such as 2026"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "until", "must be later than since"),
        ({"kind": "deploy_fail"}, "kind", "did you mean deploy_failed?"),
        ({"kind": ""}, "kind", "such as deploy_failed"),
        ({"cursor": "x"}, "cursor", "must be the next_cursor of an earlier page"),
        ({"limit": 0}, "limit", "greater than or equal to 1"),
        ({"agent_id": 2**63}, "agent_id", "less than or equal to"),
    ],
)
async def test_what_is_not_valid_is_named_in_one_sentence(
    site: Site, params: dict[str, Any], field: str, detail: str
) -> None:
    problem = checked(await site.client.get("/events", params=params), 422, "invalid_input")
    assert [each.field for each in problem.fields] == [field]
    assert detail in problem.detail
