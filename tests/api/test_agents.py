"""Agents: who is connected, who was, and how they are."""

import asyncio
from datetime import UTC, datetime

import pytest

from tests.support.app import Site
from tests.support.go_agent import GoAgent
from tests.support.problem_app import checked


async def test_an_agent_is_shown_as_it_introduced_itself(site: Site, agent: GoAgent) -> None:
    shown = await site.get(f"/agents/{await site.id_of(agent)}")
    assert (shown["hostname"], shown["status"], shown["ip_address"]) == ("host-1", "online", "127.0.0.1")
    assert (shown["version"], shown["architecture"]) == ("1.0.0", "linux-amd64")
    created, seen = (datetime.fromisoformat(shown[name]) for name in ("created_at", "last_seen"))
    assert created <= seen <= datetime.now(UTC)


async def test_an_agent_that_left_is_offline_and_online_again_under_its_id_when_it_returns(
    site: Site, agent: GoAgent
) -> None:
    agent_id = await site.id_of(agent)
    await site.unplug(agent)
    assert (await site.get(f"/agents/{agent_id}"))["status"] == "offline"
    assert (await site.get("/health"))["connected_agents"] == 0
    agent.plug_in()
    await agent.connected(2)
    assert (await site.get(f"/agents/{agent_id}"))["status"] == "online"
    assert (await site.get("/agents"))["total"] == 1


async def test_agents_are_listed_in_pages_with_their_total(site: Site) -> None:
    ids = [await site.id_of(await site.agent(f"host-{number}")) for number in range(5)]
    page = await site.get("/agents", limit=2)
    seen = [agent["id"] for agent in page["agents"]]
    assert page["total"] == 5
    while page["next_cursor"]:
        page = await site.get("/agents", limit=2, cursor=page["next_cursor"])
        seen += [agent["id"] for agent in page["agents"]]
    assert seen == ids
    everything = await site.get("/agents")
    assert (len(everything["agents"]), everything["next_cursor"]) == (5, None)


async def test_agents_are_filtered_by_status_and_counted_so(site: Site, agent: GoAgent) -> None:
    await site.offline_agent("host-2")
    for status, hostname in (("online", "host-1"), ("offline", "host-2")):
        page = await site.get("/agents", status=status)
        assert ([row["hostname"] for row in page["agents"]], page["total"]) == ([hostname], 1)


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"status": "gone"}, {"cursor": "x"}, {"cursor": str(2**63)}],
)
async def test_a_filter_or_cursor_that_is_not_valid_is_named(site: Site, params: dict[str, str]) -> None:
    problem = checked(await site.client.get("/agents", params=params), 422, "invalid_input")
    assert [field.field for field in problem.fields] == list(params)


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/health-check")])
@pytest.mark.parametrize(
    ("agent_id", "status", "code"),
    [
        ("1", 404, "agent_not_found"),
        (str(2**63 - 1), 404, "agent_not_found"),
        (str(2**63), 422, "invalid_input"),
        ("0", 422, "invalid_input"),
        ("-1", 422, "invalid_input"),
        ("host-1", 422, "invalid_input"),
        ("9" * 5000, 422, "invalid_input"),
        ("%00", 422, "invalid_input"),
    ],
)
async def test_an_agent_that_does_not_or_cannot_exist_is_a_clean_refusal(
    site: Site, method: str, path: str, agent_id: str, status: int, code: str
) -> None:
    checked(await site.client.request(method, f"/agents/{agent_id}{path}"), status, code)


async def test_a_health_check_tells_what_the_agent_says(site: Site, agent: GoAgent) -> None:
    answer = await site.post(f"/agents/{await site.id_of(agent)}/health-check")
    assert (answer["status"], answer["error"], answer["reason"]) == ("completed", None, None)
    assert answer["data"] == {"version": "1.0.0", "architecture": "linux-amd64", "hostname": "host-1"}


async def test_health_checks_at_the_same_time_share_one_command(site: Site, agent: GoAgent) -> None:
    path = f"/agents/{await site.id_of(agent)}/health-check"
    agent.freeze()
    first = await site.post(path, wait=0)
    assert first["status"] == "queued"
    asking = [asyncio.create_task(site.post(path, wait=30)) for _ in range(10)]
    agent.thaw()
    answers = await asyncio.gather(*asking)
    assert {answer["status"] for answer in answers} == {"completed"}
    assert (await site.get("/jobs"))["jobs"][-1]["id"] == first["job_id"]


async def test_a_health_check_of_an_agent_that_is_offline_is_503_with_when_to_try_again(site: Site) -> None:
    agent = await site.offline_agent()
    response = await site.client.post(f"/agents/{await site.id_of(agent)}/health-check")
    problem = checked(response, 503, "agent_not_connected")
    assert "host-1" in problem.detail
    assert response.headers["retry-after"] == "10"
    assert (await site.get("/jobs"))["jobs"] == []
