"""An address that sends wrong tokens is told to wait, on both edges together; a valid token is served all the same."""

import httpx
import pytest
from structlog.testing import capture_logs

from control_plane.core.failure_limits import WINDOW_SECONDS, FailureLimits
from tests.api.conftest import OpenSite
from tests.support.app import API_TOKEN, Site, contract
from tests.support.problem_app import checked
from tests.support.raw_socket import RawSocket, RefusalError

LIMIT = 3
WRONG = "wrong"


@pytest.fixture
async def site(open_site: OpenSite) -> Site:
    return await open_site(max_failed_tokens_per_minute=LIMIT)


async def guess(site: Site, token: str | None = WRONG) -> httpx.Response:
    """Ask with a token that is not valid; the answer is one that the OpenAPI document declares."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=site.url, headers=headers, trust_env=False, verify=False) as client:  # noqa: S501 - no TLS
        answer = await client.get("/agents")
        await contract().check(answer)
        return answer


async def knock(site: Site) -> RefusalError:
    """Dial as an agent with a wrong token."""
    with pytest.raises(RefusalError) as refused:
        await RawSocket.open(site.url.replace("http", "ws", 1) + "/ws", "wrong", "host-1")
    return refused.value


async def value(site: Site, name: str, **labels: str) -> float | None:
    return site.plane.metrics.registry.get_sample_value(f"instadeploy_{name}", labels)


@pytest.mark.promise("guessing")
async def test_wrong_and_missing_tokens_are_answered_429_from_the_limit_on(site: Site) -> None:
    for token in ("wrong", None, "wrong")[:LIMIT]:
        checked(await guess(site, token), 401, "unauthorized")
    for token in ("wrong", None):
        answer = await guess(site, token)
        problem = checked(answer, 429, "too_many_failures")
        assert 0 < int(answer.headers["retry-after"]) <= WINDOW_SECONDS
        assert answer.headers["retry-after"] in problem.detail
    assert await value(site, "http_refusals_total", status="429", code="too_many_failures") == 2
    assert await value(site, "addresses_limited_total") == 1


@pytest.mark.control("guessing")
async def test_without_the_limit_guesses_would_go_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailureLimits, "note", lambda *_: 0)
    with pytest.raises(AssertionError, match="unauthorized"):
        await test_wrong_and_missing_tokens_are_answered_429_from_the_limit_on(site)


@pytest.mark.promise("guessing")
async def test_failures_of_agents_and_of_callers_count_together(site: Site) -> None:
    for _ in range(LIMIT):
        assert (await knock(site)).status == 401
    with capture_logs() as logs:
        refused = await knock(site)
        assert await knock(site) is not refused
    assert (refused.status, refused.problem["code"]) == (429, "too_many_failures")
    assert 0 < int(refused.headers["retry-after"]) <= WINDOW_SECONDS
    assert [line["event"] for line in logs] == ["address_limited"], "guesses beyond the limit fill no log"
    checked(await guess(site), 429, "too_many_failures")
    assert await value(site, "agent_refusals_total", code="too_many_failures") == 2


@pytest.mark.promise("guessing")
async def test_valid_tokens_are_served_from_an_address_that_has_failed_too_often(site: Site) -> None:
    agent = await site.agent()
    for _ in range(LIMIT + 2):
        await guess(site)
    checked(await guess(site), 429, "too_many_failures")
    assert (await guess(site, API_TOKEN)).status_code == 200
    agent.drop()
    await site.agent("host-2")
    await agent.connected()


async def test_valid_tokens_are_never_counted(site: Site) -> None:
    for _ in range(LIMIT * 3):
        assert (await guess(site, API_TOKEN)).status_code == 200
    checked(await guess(site), 401, "unauthorized")


async def test_refusals_for_other_reasons_are_not_counted(site: Site) -> None:
    url = site.url.replace("http", "ws", 1) + "/ws"
    for _ in range(LIMIT * 2):
        with pytest.raises(RefusalError) as refused:
            await RawSocket.open(url, "agent-token-of-the-tests", "")
        assert refused.value.status == 400
        assert (await site.client.get("/nowhere")).status_code == 404
    checked(await guess(site), 401, "unauthorized")
