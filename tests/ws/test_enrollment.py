"""Enrolment: hosts become agents with a token of their own, so many and so long as the operator said."""

import asyncio
import json
import re
from typing import Any

import pytest
import time_machine

from tests.support.app import AGENT_TOKEN
from tests.support.raw_socket import RawSocket, RefusalError
from tests.support.tenants import Answer, made, organization, tenant
from tests.ws.fleet import Fleet


class Host(RawSocket):
    """A host that can enrol: it keeps the head of the answer that let it in."""

    head = ""

    async def _expect_upgrade(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        if " 101 " not in self.head.split("\r\n")[0]:
            length = re.search(r"(?i)content-length: (\d+)", self.head)
            body = await self.reader.readexactly(int(length[1]) if length else 0)
            self.cut()
            raise RefusalError(int(self.head.split(" ", 2)[1]), {}, body)

    @property
    def token(self) -> str:
        """The token of its own that it was given."""
        found = re.search(r"(?i)\r\nx-agent-token: (\S+)\r\n", self.head)
        assert found, self.head
        return found[1]


async def enrolment(fleet: Fleet, **fields: Any) -> Answer:
    return await made(fleet.client, "/agents/enroll", fields)


async def enrolled(fleet: Fleet, token: str, hostname: str = "web-1", capabilities: str = "enroll") -> Host:
    """Return the socket of a host that enrolled. Raises RefusalError."""
    host = await Host.open(fleet.ws_url, token, hostname, ("X-Agent-Capabilities", capabilities))
    return await fleet.agents.enter_async_context(host)


async def refusal(fleet: Fleet, token: str, hostname: str = "web-1", capabilities: str = "enroll") -> tuple[int, str]:
    with pytest.raises(RefusalError) as refused:
        await enrolled(fleet, token, hostname, capabilities)
    return refused.value.status, str(json.loads(refused.value.body)["code"])


async def gone(fleet: Fleet, host: RawSocket, hostname: str = "web-1") -> None:
    host.cut()
    await fleet.offline(hostname)


async def uses_left(fleet: Fleet, token_id: int) -> int:
    [row] = [row for row in (await fleet.get("/tokens"))["tokens"] if row["id"] == token_id]
    return int(row["uses_left"])


async def test_a_host_gets_a_token_of_its_own_that_alone_opens_its_hostname_at_once(fleet: Fleet) -> None:
    first = await enrolment(fleet, labels={"env": "prod"})
    host = await enrolled(fleet, first["token"])
    assert host.token.startswith("idh_")
    row = await fleet.row("web-1")
    assert (row["bound"], row["labels"], row["status"]) == (True, {"env": "prod"}, "online")
    job = await fleet.start("web")
    assert (await host.command())["id"] == job
    await gone(fleet, host)
    async with await RawSocket.open(fleet.ws_url, host.token, "web-1"):
        assert (await fleet.row("web-1"))["status"] == "online"
    await fleet.offline("web-1")
    assert await refusal(fleet, AGENT_TOKEN) == (403, "hostname_bound")


async def test_its_token_is_known_before_the_host_can_come_with_it(fleet: Fleet) -> None:
    many = await enrolment(fleet, uses=20)

    async def there_and_back(hostname: str) -> None:
        host = await enrolled(fleet, many["token"], hostname)
        host.cut()
        while True:
            try:
                async with await RawSocket.open(fleet.ws_url, host.token, hostname):
                    return
            except RefusalError as refused:
                if refused.status != 409:  # that its socket before has ended may not be noticed yet
                    raise

    await asyncio.gather(*(there_and_back(f"web-{number}") for number in range(20)))


@pytest.mark.parametrize("uses", [1, 5])
async def test_of_many_hosts_that_race_just_as_many_are_enrolled_as_were_granted(fleet: Fleet, uses: int) -> None:
    granted = await enrolment(fleet, uses=uses)
    names = [f"web-{number}" for number in range(20)]
    outcomes = await asyncio.gather(
        *(enrolled(fleet, granted["token"], name) for name in names), return_exceptions=True
    )
    won = [outcome for outcome in outcomes if isinstance(outcome, Host)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, RefusalError)]
    assert (len(won), len(lost)) == (uses, 20 - uses)
    assert {refused.status for refused in lost} == {401}
    assert "as many agents as it may" in lost[0].problem["detail"]
    assert (await fleet.get("/agents"))["total"] == uses
    assert len({host.token for host in won}) == uses
    assert await uses_left(fleet, granted["id"]) == 0


async def test_an_answer_that_was_lost_is_given_again_and_counted_once(fleet: Fleet) -> None:
    granted = await enrolment(fleet, uses=1)
    tokens = []
    for _ in range(3):
        host = await enrolled(fleet, granted["token"])
        tokens.append(host.token)
        assert await uses_left(fleet, granted["id"]) == 0
        await gone(fleet, host)
    assert await refusal(fleet, granted["token"], "web-2") == (401, "unauthorized")
    for lost in tokens[:-1]:
        assert await refusal(fleet, lost) == (401, "unauthorized")
    async with await RawSocket.open(fleet.ws_url, tokens[-1], "web-1"):
        pass
    await fleet.offline("web-1")
    assert await refusal(fleet, granted["token"]) == (403, "hostname_bound")


async def test_another_enrolment_does_not_open_a_hostname_that_one_has_bound(fleet: Fleet) -> None:
    first, second = await enrolment(fleet), await enrolment(fleet)
    await gone(fleet, await enrolled(fleet, first["token"]))
    assert await refusal(fleet, second["token"]) == (403, "hostname_bound")
    assert await uses_left(fleet, second["id"]) == 1


async def test_an_enrolment_that_has_expired_enrols_nobody(fleet: Fleet) -> None:
    granted = await enrolment(fleet, expires_in_seconds=60, uses=2)
    await enrolled(fleet, granted["token"], "web-1")
    with time_machine.travel(granted["expires_at"], tick=False):
        assert await refusal(fleet, granted["token"], "web-2") == (401, "unauthorized")


async def test_an_enrolment_that_was_revoked_enrols_nobody_and_ends_no_agent(fleet: Fleet) -> None:
    granted = await enrolment(fleet, uses=2)
    host = await enrolled(fleet, granted["token"])
    assert (await fleet.client.delete(f"/tokens/{granted['id']}")).status_code == 204
    assert await refusal(fleet, granted["token"], "web-2") == (401, "unauthorized")
    job = await fleet.start("web")
    assert (await host.command())["id"] == job


async def test_an_agent_that_cannot_keep_a_token_is_not_enrolled_and_uses_nothing_up(fleet: Fleet) -> None:
    granted = await enrolment(fleet)
    assert await refusal(fleet, granted["token"], capabilities="") == (403, "cannot_enroll")
    assert (await fleet.get("/agents"))["total"] == 0
    await enrolled(fleet, granted["token"])


async def test_a_live_agent_keeps_its_hostname_from_a_host_that_enrols(fleet: Fleet) -> None:
    await fleet.joined("web-1")
    granted = await enrolment(fleet)
    assert await refusal(fleet, granted["token"]) == (409, "hostname_taken")
    assert await uses_left(fleet, granted["id"]) == 1


async def test_a_known_agent_that_shared_the_secret_enrols_and_stays_the_same_agent(fleet: Fleet) -> None:
    await gone(fleet, await fleet.raw("web-1"))
    before = (await fleet.row("web-1"))["id"]
    await enrolled(fleet, (await enrolment(fleet))["token"])
    assert (await fleet.row("web-1"))["id"] == before
    assert (await fleet.get("/agents"))["total"] == 1


async def test_a_limited_operators_enrolment_takes_no_agent_that_is_out_of_its_reach(fleet: Fleet) -> None:
    await gone(fleet, await fleet.raw("prod-1"), "prod-1")
    before = await fleet.row("prod-1")
    operator = await tenant(fleet, "operator", labels={"env": "staging"})
    granted = await operator.does("POST", "/agents/enroll")
    assert await refusal(fleet, granted["token"], "prod-1") == (403, "hostname_bound")
    assert await fleet.row("prod-1") == before
    await enrolled(fleet, granted["token"], "staging-1")
    assert [row["hostname"] for row in (await operator.get("/agents"))["agents"]] == ["staging-1"]


async def test_a_known_agent_is_enrolled_with_labels_that_it_has(fleet: Fleet) -> None:
    await gone(fleet, await fleet.raw("web-1"))
    agent_id = (await fleet.row("web-1"))["id"]
    granted = await enrolment(fleet, labels={"env": "prod"})
    assert await refusal(fleet, granted["token"]) == (403, "hostname_bound")
    changed = await fleet.client.patch(f"/agents/{agent_id}", json={"labels": {"env": "prod", "rack": "4"}})
    assert changed.status_code == 200
    await enrolled(fleet, granted["token"])
    assert (await fleet.row("web-1"))["labels"] == {"env": "prod", "rack": "4"}


async def test_the_same_hostname_and_project_of_two_organisations_are_two(fleet: Fleet) -> None:
    other = await tenant(fleet, "admin", organization_id=await organization(fleet, "other"))
    theirs = await enrolled(fleet, (await other.does("POST", "/agents/enroll"))["token"])
    ours = await fleet.joined("web-1")
    mine = await fleet.deploy("shop")
    body = {"project_name": "shop", "compose_file": "services: {web: {image: other}}"}
    started = await other.does("POST", "/deploy", body)
    assert (await theirs.command())["id"] == started["job_id"]
    theirs.say(started["job_id"], "COMPLETED", "done over there")
    told = await other.get(f"/jobs/{started['job_id']}", wait=20)
    assert (told["status"], told["logs"]) == ("completed", "done over there")
    assert mine["agent_id"] != started["agent_id"]
    assert [run.job_id for run in ours.executions] == [mine["job_id"]]

    asked = asyncio.create_task(other.get("/projects/shop/status", wait=20))
    question = await theirs.command()
    theirs.say(question["id"], "COMPLETED", "their table")
    assert (await asked)["logs"] == "their table"
    assert (await fleet.get("/projects/shop/status", wait=20))["logs"] != "their table"

    await fleet.post("/projects/shop/stop", wait=20)
    assert (await fleet.get("/projects/shop"))["agents"][0]["current"] is None
    assert (await other.get("/projects/shop"))["agents"][0]["current"]["id"] == started["deployment_id"]
    for caller, agent_id in ((fleet, mine["agent_id"]), (other, started["agent_id"])):
        for path, rows in (("/agents", "agents"), ("/deployments", "deployments"), ("/jobs", "jobs")):
            ids = {row.get("agent_id", row["id"]) for row in (await caller.get(path))[rows]}
            assert ids == {agent_id}, path
        events = (await caller.get("/events", project="shop"))["events"]
        assert {event["agent_id"] for event in events} == {agent_id}
    assert not [event for event in (await other.get("/events"))["events"] if event["kind"].startswith("control_plane")]
