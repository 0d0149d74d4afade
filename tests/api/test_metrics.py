"""`GET /metrics`: what happens is counted, by labels that do not grow, in the form that the scraper asks for."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from control_plane import __version__
from control_plane.core.errors import StoreUnavailableError
from control_plane.core.metrics import ANSWER_OUTCOMES
from control_plane.store.answers import Outcome
from tests.api.conftest import OpenSite
from tests.support.app import Site
from tests.support.go_agent import GoAgent
from tests.support.problem_app import checked

Labels = dict[str, str]
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


async def scrape(site: Site, **headers: str) -> httpx.Response:
    response = await site.client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    return response


async def samples(site: Site) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = parse_text((await scrape(site)).text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


async def value(site: Site, name: str, **labels: str) -> float:
    return (await samples(site))[f"instadeploy_{name}", frozenset(labels.items())]


async def until(site: Site, expected: float, name: str, **labels: str) -> None:
    async with asyncio.timeout(20):
        while await value(site, name, **labels) != expected:
            pass


async def test_it_needs_the_token(site: Site) -> None:
    site.client.headers.pop("Authorization")
    checked(await site.client.get("/metrics"), 401, "unauthorized")


async def test_it_comes_as_text_unless_the_scraper_prefers_openmetrics(site: Site) -> None:
    text = await scrape(site)
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert list(parse_text(text.text))
    open_text = await scrape(site, accept=f"{OPENMETRICS},text/plain;version=0.0.4;q=0.5")
    assert open_text.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert list(parse_openmetrics(open_text.text))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics-text;version=x", "text/plain;version=1.y", "text/plain;version=", ";;==,", "\xb2", "*/*"],
)
async def test_an_odd_accept_header_gets_the_text_form(site: Site, accept: str) -> None:
    response = await site.client.get("/metrics", headers=[(b"Accept", accept.encode("latin-1"))])
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_it_says_what_runs(site: Site) -> None:
    [labels] = [dict(labels) for name, labels in await samples(site) if name == "instadeploy_build_info"]
    assert labels["version"] == __version__


async def test_a_deploy_is_counted_timed_and_measured(site: Site, agent: GoAgent) -> None:
    await site.deploy("web")
    kind = {"type": "DEPLOY_COMPOSE"}
    assert await value(site, "agents_connected") == 1
    assert await value(site, "agent_connects_total") == 1
    assert await value(site, "jobs_accepted_total", **kind) == 1
    assert await value(site, "jobs_finished_total", **kind, status="completed", reason="") == 1
    for histogram in ("job_dispatch_seconds", "job_execution_seconds"):
        assert await value(site, f"{histogram}_count", **kind) == 1
        assert 0 <= await value(site, f"{histogram}_sum", **kind) < 30
    commits = await value(site, "writer_commit_seconds_count")
    assert commits == await value(site, "writer_batch_changes_count") >= 3
    assert await value(site, "writer_batch_changes_sum") >= commits
    assert await value(site, "commands_awaited") == await value(site, "writer_waiting") == 0


async def test_a_failed_job_is_counted_by_its_reason(site: Site, agent: GoAgent) -> None:
    agent.fail("web", "no such image")
    await site.deploy("web")
    labels = {"type": "DEPLOY_COMPOSE", "status": "failed"}
    assert await value(site, "jobs_finished_total", **labels, reason="agent_error") == 1
    other = await site.offline_agent("host-2")
    queued = await site.deploy("late", wait=0, agent_id=await site.id_of(other), when_offline="queue")
    assert await value(site, "jobs_queued") == 1
    await site.post(f"/jobs/{queued['job_id']}/cancel")
    assert await value(site, "jobs_finished_total", **labels, reason="canceled") == 1
    assert await value(site, "jobs_queued") == 0
    assert await value(site, "job_execution_seconds_count", type="DEPLOY_COMPOSE") == 1, "never sent, so never run"


async def test_the_end_of_a_connection_is_counted_by_its_close_code(site: Site, agent: GoAgent) -> None:
    await site.unplug(agent)
    await until(site, 1, "agent_disconnects_total", code="1006")
    assert await value(site, "agents_connected") == 0


async def test_a_refused_agent_is_counted_by_the_reason(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url, trust_env=False) as stranger:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        assert (await stranger.get("/ws", headers=headers)).status_code == 401
    assert await value(site, "agent_refusals_total", code="unauthorized") == 1
    assert await value(site, "agent_refusals_total", code="hostname_taken") == 0


async def test_every_refused_request_is_counted_once_by_status_and_code(site: Site) -> None:
    await site.client.get("/nowhere")
    await site.client.get("/agents/999")
    await site.client.post("/deploy", json={"project_name": "web", "compose_file": "services: {}"})
    too_large = b" " * (2 * 1024 * 1024)
    await site.client.post("/deploy", content=too_large, headers={"Content-Type": "application/json"})
    chunks = (too_large[:4096] for _ in range(400))

    async def streamed() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    await site.client.post("/deploy", content=streamed(), headers={"Content-Type": "application/json"})
    expected = {("404", "route_not_found"): 1, ("404", "agent_not_found"): 1, ("413", "too_large"): 2}
    expected["422", "invalid_compose_file"] = 1
    seen = {
        (dict(labels)["status"], dict(labels)["code"]): count
        for (name, labels), count in (await samples(site)).items()
        if name == "instadeploy_http_refusals_total" and count
    }
    assert seen == expected
    assert await value(site, "http_answers_total", status="4xx") == sum(expected.values())


async def test_loops_tell_their_age_and_how_old_they_may_become(site: Site) -> None:
    assert 0 <= await value(site, "loop_age_seconds", loop="deadlines") < 30
    assert await value(site, "loop_max_age_seconds", loop="deadlines") == 30


async def test_no_label_names_an_agent_a_project_or_a_job(site: Site, agent: GoAgent) -> None:
    before = set(await samples(site))
    await site.agent("host-2")
    for number in range(5):
        await site.deploy(f"project-{number}")
        await site.get(f"/projects/project-{number}/status")
    await site.client.get("/deployments/424242")
    assert set(await samples(site)) == before


async def test_it_answers_while_the_database_does_not(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site = await open_site()

    async def unavailable(*_args: object) -> int:
        raise StoreUnavailableError("The control plane's database does not answer.")

    monkeypatch.setattr(site.plane.store, "read", unavailable)
    queued = await value(site, "jobs_queued")
    assert queued != queued  # noqa: PLR0124 - NaN alone differs from itself


def test_every_outcome_that_an_agents_answer_can_have_is_counted() -> None:
    assert set(ANSWER_OUTCOMES) == {outcome.value for outcome in Outcome} - {Outcome.HELD_BACK.value} | {"duplicate"}
