"""Idempotency-Key: what is sent again is done once, and what was refused may be mended under the same key."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import OpenSite
from tests.support.app import WEB, Site
from tests.support.go_agent import GoAgent
from tests.support.problem_app import checked
from tests.support.store import sql

BODY = {"project_name": "web", "compose_file": WEB}
REPLAYED = "idempotency-replayed"

both_ways = pytest.mark.parametrize("params", [{}, {"wait": 30}], ids=["past the framework", "through it"])


async def send(site: Site, path: str, key: str, body: Any = None, **params: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key}
    return await site.client.post(path, json=body, headers=headers, params=params)


async def jobs(site: Site) -> list[str]:
    return [job["id"] for job in (await site.get("/jobs"))["jobs"]]


@both_ways
async def test_the_same_key_and_body_get_the_same_job_and_change_nothing_more(
    site: Site, agent: GoAgent, params: dict[str, Any]
) -> None:
    first = await send(site, "/deploy", "k", BODY, **params)
    again = await send(site, "/deploy", "k", BODY, **params)
    assert (first.status_code, again.status_code) == (200, 200)
    assert (REPLAYED in first.headers, again.headers.get(REPLAYED)) == (False, "true")
    differ = {name for name in first.json() if first.json()[name] != again.json()[name]}
    assert differ <= {"message"}
    assert await jobs(site) == [first.json()["job_id"]]
    await site.get(f"/jobs/{first.json()['job_id']}", wait=30)
    assert len(agent.executions) == 1


async def test_a_repetition_gets_the_warnings_of_the_first_answer(site: Site, agent: GoAgent) -> None:
    body = {**BODY, "compose_file": "services:\n  web:\n    image: nginx:${TAG}\n"}
    first, again = [(await send(site, "/deploy", "k", body)).json() for _ in range(2)]
    assert first["warnings"] == again["warnings"] != []


async def test_a_repetition_that_waits_is_held_until_the_first_deploy_is_over(site: Site, agent: GoAgent) -> None:
    agent.hold("web")
    first = (await send(site, "/deploy", "k", BODY)).json()
    waiting = asyncio.create_task(send(site, "/deploy", "k", BODY, wait=30))
    await agent.started(1)
    assert (await send(site, "/deploy", "k", BODY, wait=0.05)).json()["status"] == "in_progress"
    assert not waiting.done()
    agent.release("web")
    assert ((await waiting).json()["job_id"], (await waiting).json()["status"]) == (first["job_id"], "completed")


async def test_without_a_key_the_same_body_is_another_deploy(site: Site, agent: GoAgent) -> None:
    assert (await site.deploy("web"))["job_id"] != (await site.deploy("web"))["job_id"]


@pytest.mark.promise("5")
@pytest.mark.parametrize("waits", [(0,), (0, 30)], ids=["one way", "both ways"])
async def test_of_fifty_posts_at_once_with_one_key_one_is_carried_out_and_all_get_its_answer(
    site: Site, agent: GoAgent, waits: tuple[int, ...]
) -> None:
    sent = [send(site, "/deploy", "k", BODY, wait=waits[number % len(waits)]) for number in range(50)]
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} == {200}
    assert len({(answer.json()["job_id"], answer.json()["deployment_id"]) for answer in answers}) == 1
    assert await jobs(site) == [answers[0].json()["job_id"]]
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    # Those that lost the race gave the agent's lane back: the next command is sent.
    assert (await site.deploy("next"))["status"] == "completed"
    assert len(agent.executions) == 2


async def test_keys_of_their_own_posted_at_once_are_carried_out_each(site: Site, agent: GoAgent) -> None:
    answers = await asyncio.gather(
        *(send(site, "/deploy", f"k{n % 10}", {**BODY, "project_name": f"p{n % 10}"}) for n in range(30))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(await jobs(site)) == sorted({answer.json()["job_id"] for answer in answers})
    assert len(await jobs(site)) == 10


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/deploy", {**BODY, "timeout_seconds": 20}),
        ("/projects/web/stop", None),
        ("/jobs/JOB/cancel", None),
    ],
)
async def test_the_same_key_with_another_path_or_body_is_refused(
    site: Site, agent: GoAgent, path: str, body: Any
) -> None:
    job = (await send(site, "/deploy", "k", BODY, wait=30)).json()["job_id"]
    before = await site.stored()
    refused = await send(site, path.replace("JOB", job), "k", body)
    assert "new key" in checked(refused, 422, "idempotency_key_reused").detail
    assert await site.stored() == before


async def test_posts_at_once_with_one_key_and_two_bodies_carry_out_one_of_them(site: Site, agent: GoAgent) -> None:
    other = {**BODY, "timeout_seconds": 20}
    answers = await asyncio.gather(*(send(site, "/deploy", "k", other if n % 2 else BODY) for n in range(20)))
    accepted = {answer.json()["job_id"] for answer in answers if answer.status_code == 200}
    assert list(accepted) == await jobs(site)
    refusals = [answer for answer in answers if answer.status_code != 200]
    assert len(refusals) == 10
    for answer in refusals:
        checked(answer, 422, "idempotency_key_reused")


async def test_a_refused_request_uses_its_key_for_nothing(open_site: OpenSite) -> None:
    site = await open_site(max_queued_jobs_per_agent=1)
    checked(await send(site, "/deploy", "k", {**BODY, "compose_file": "services: {}"}), 422, "invalid_compose_file")
    checked(await send(site, "/deploy", "k", BODY), 503, "no_agents")
    agent = await site.offline_agent()
    queued = {**BODY, "when_offline": "queue", "agent_id": await site.id_of(agent)}
    first = (await send(site, "/deploy", "other", {**queued, "project_name": "first"})).json()
    checked(await send(site, "/deploy", "k", queued), 429, "queue_full")
    assert (await send(site, "/deploy", "other", {**queued, "project_name": "first"})).headers[REPLAYED] == "true"
    agent.plug_in()
    await site.get(f"/jobs/{first['job_id']}", wait=30)
    accepted = await send(site, "/deploy", "k", queued, wait=30)
    assert (accepted.json()["status"], REPLAYED in accepted.headers) == ("completed", False)


@both_ways
async def test_a_repetition_is_answered_though_it_would_be_refused_by_now(
    site: Site, agent: GoAgent, params: dict[str, Any]
) -> None:
    first = (await send(site, "/deploy", "d", BODY, wait=30)).json()
    stopped = (await send(site, "/projects/web/stop", "s", wait=30)).json()
    await site.unplug(agent)
    checked(await site.client.post("/deploy", json=BODY), 503, "no_agents")
    again = await send(site, "/deploy", "d", BODY, **params)
    assert (again.status_code, again.json()["job_id"]) == (200, first["job_id"])
    stopped_again = await send(site, "/projects/web/stop", "s", **params)
    assert (stopped_again.status_code, stopped_again.json()["job_id"]) == (200, stopped["job_id"])


@pytest.mark.promise("5")
async def test_a_stop_that_is_sent_again_is_done_once(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    answers = await asyncio.gather(*(send(site, "/projects/web/stop", "k", {}, wait=30) for _ in range(20)))
    assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "completed")}
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert len(agent.executions) == 2


@pytest.mark.promise("5")
async def test_a_cancellation_that_is_sent_again_is_no_conflict(site: Site) -> None:
    agent = await site.offline_agent()
    queued = {**BODY, "when_offline": "queue", "agent_id": await site.id_of(agent)}
    path = f"/jobs/{(await site.post('/deploy', queued))['job_id']}/cancel"
    answers = await asyncio.gather(*(send(site, path, "k") for _ in range(20)))
    assert {(answer.status_code, answer.json()["reason"]) for answer in answers} == {(200, "canceled")}
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    checked(await send(site, path, "another"), 409, "job_finished")
    checked(await send(site, path, "another"), 409, "job_finished")


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"caf\xc3\xa9", b"a\tb"], ids=["empty", "long", "utf-8", "tab"])
@both_ways
async def test_a_key_that_is_none_is_refused_and_nothing_done(
    site: Site, agent: GoAgent, key: bytes, params: dict[str, Any]
) -> None:
    headers = [(b"Idempotency-Key", key)]
    refused = checked(
        await site.client.post("/deploy", json=BODY, headers=headers, params=params), 422, "invalid_input"
    )
    assert refused.fields[0].field == "Idempotency-Key"
    assert await jobs(site) == []


async def test_two_keys_of_one_request_are_refused(site: Site, agent: GoAgent) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    checked(await site.client.post("/deploy", json=BODY, headers=headers), 422, "invalid_input")


@pytest.mark.parametrize("key", ["k" * 255, "a b", '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "~!'\\"])
async def test_every_printable_key_is_taken_as_it_is(site: Site, agent: GoAgent, key: str) -> None:
    first, again = [await send(site, "/deploy", key, BODY) for _ in range(2)]
    assert (first.json()["job_id"], again.headers[REPLAYED]) == (again.json()["job_id"], "true")


async def test_a_key_is_free_again_after_a_day_also_if_its_record_is_still_there(
    site: Site, agent: GoAgent, tmp_path: Path
) -> None:
    first = (await send(site, "/deploy", "k", BODY)).json()["job_id"]
    database = tmp_path / "control_plane.db"
    almost = datetime.now(UTC) - timedelta(hours=24) + timedelta(minutes=1)
    for ago, same in ((almost, True), (almost - timedelta(minutes=1), False)):
        sql(database, "UPDATE idempotency_record SET created_at = ?", ago.isoformat(" ", "microseconds"))
        assert ((await send(site, "/deploy", "k", BODY)).json()["job_id"] == first) is same
    assert len(await jobs(site)) == 2
    assert sql(database, "SELECT count(*) FROM idempotency_record") == [1]


async def test_a_record_holds_ids_and_warnings_and_not_the_compose_file(
    site: Site, agent: GoAgent, tmp_path: Path
) -> None:
    body = {**BODY, "compose_file": f"{WEB}    labels: {{canary: '{'x' * 20_000}'}}\n"}
    await send(site, "/deploy", "k", body)
    [row] = sql(tmp_path / "control_plane.db", "SELECT * FROM idempotency_record")
    assert len(repr(row)) < 500
