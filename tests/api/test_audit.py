"""Every request that is to change something leaves exactly one entry in the audit, whatever becomes of it.

The routes are taken from the OpenAPI document: a new one fails here until it is right.
"""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from control_plane.core.errors import StoreUnavailableError
from control_plane.core.tokens import TokenKind, make_token
from tests.support.app import WEB, Site, contract
from tests.support.go_agent import GoAgent
from tests.support.raw_socket import RawSocket, RefusalError

MUTATIONS = {
    operation["operationId"]: (method.upper(), path)
    for path, item in contract().document["paths"].items()
    for method, operation in item.items()
    if method not in {"get", "head"}
}
SAMPLE = {
    "name": "web",
    "token_id": "1",
    "agent_id": "1",
    "deployment_id": "1",
    "job_id": "01a209fb-c730-735a-bcc1-eea7d4ab715a",
}
DEPLOY = {"project_name": "web", "compose_file": WEB}

every_mutation = pytest.mark.parametrize("action", sorted(MUTATIONS))


@dataclass
class Watch:
    """A site, and the entries that its audit has got since the last look."""

    site: Site
    viewer: str
    seen: int = 0

    async def news(self) -> list[dict[str, Any]]:
        """Return the newest entries, oldest first."""
        entries = (await self.site.get("/audit", limit=1000))["entries"]
        new = [each for each in reversed(entries) if each["id"] > self.seen]
        self.seen = entries[0]["id"] if entries else 0
        return new

    async def send(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
        return await self.site.client.request(method, path, headers=headers, **options)

    async def only(self, answer: httpx.Response) -> dict[str, Any]:
        """Return the one entry that a request left."""
        [entry] = await self.news()
        assert entry["request_id"] == answer.headers["x-request-id"]
        assert entry["address"] == "127.0.0.1"
        return entry


@pytest.fixture
async def watch(site: Site) -> Watch:
    made = await site.client.post("/tokens", json={"name": "a viewer", "role": "viewer"})
    watch = Watch(site, made.json()["token"])
    await watch.news()
    return watch


@every_mutation
async def test_a_refusal_for_want_of_a_role_leaves_one_entry(watch: Watch, action: str) -> None:
    method, path = MUTATIONS[action]
    for query in ("", "?wait=0"):  # a deploy without a query takes another way through the app
        answer = await watch.send(method, path.format(**SAMPLE) + query, watch.viewer, json=DEPLOY)
        assert answer.status_code == 403, answer.text
        entry = await watch.only(answer)
        assert (entry["action"], entry["outcome"]) == (action, "not_allowed")
        assert (entry["actor"], entry["role"], entry["token_id"]) == ("a viewer", "viewer", 1)
        for name in ("agent_id", "token_id", "job_id", "name"):
            assert f"{{{name}}}" not in path or SAMPLE[name] in entry["object"]


@every_mutation
async def test_a_request_that_is_not_valid_leaves_one_entry(watch: Watch, action: str) -> None:
    method, path = MUTATIONS[action]
    answer = await watch.send(method, path.format(**SAMPLE), params={"nonsense": "1"})
    assert answer.status_code == 422
    entry = await watch.only(answer)
    assert (entry["action"], entry["outcome"], entry["job_id"]) == (action, "invalid_input", None)
    assert (entry["actor"], entry["role"], entry["token_id"]) == ("API_TOKEN", "root", None)


@every_mutation
async def test_a_body_that_cannot_be_read_leaves_one_entry(watch: Watch, action: str) -> None:
    method, path = MUTATIONS[action]
    json_said = {"Content-Type": "application/json"}
    answer = await watch.send(method, path.format(**SAMPLE), content=b"{", headers=json_said)
    entry = await watch.only(answer)
    outcome = "done" if answer.is_success else answer.json()["code"]  # where no body is taken, none is read
    assert (entry["action"], entry["outcome"]) == (action, outcome)


async def test_each_change_leaves_one_entry_that_tells_what_was_done(watch: Watch, agent: GoAgent) -> None:
    site = watch.site
    away = await site.offline_agent("host-2")
    queued = await site.deploy("late", wait=0, agent_id=2, when_offline="queue")
    await watch.news()
    job, token = queued["job_id"], {"name": "ci", "role": "deployer"}
    works: dict[str, tuple[str, Any, str, int | None]] = {
        "deploy": ("/deploy", DEPLOY, "project web on agent 1", 2),
        "stop_project": ("/projects/web/stop", None, "project web on agent 1", None),
        "cancel_job": (f"/jobs/{job}/cancel", None, f"job {job}", None),
        "check_agent_health": ("/agents/1/health-check?wait=9", None, "agent 1", None),
        "change_agent": ("/agents/1", {"labels": {"env": "prod", "old": None}, "cordoned": True}, "agent 1: ", None),
        "create_enrollment": ("/agents/enroll", {"name": "new hosts"}, "enrolment new hosts", 2),
        "create_token": ("/tokens", token, "token ci (deployer)", 3),
        "rotate_token": ("/tokens/3/rotate", None, "token 3", None),
        "revoke_token": ("/tokens/3", None, "token 3", None),
        "create_organization": ("/organizations", {"name": "acme"}, "organization acme", 2),
        "create_agent_token": ("/agents/1/token", None, "agent 1", 4),
        "revoke_agent_token": ("/agents/1/token", None, "agent 1", None),
        "forget_agent": ("/agents/2", None, "agent 2", None),
    }
    assert set(works) == set(MUTATIONS), "tell what a new route leaves in the audit"
    for action, (path, body, about, result_id) in works.items():
        answer = await watch.send(MUTATIONS[action][0], path, json=body)
        assert answer.is_success, answer.text
        entry = await watch.only(answer)
        assert (entry["action"], entry["outcome"]) == (action, "done")
        assert entry["object"].startswith(about)
        assert entry["result_id"] == result_id
        made = answer.json().get("job_id", job if action == "cancel_job" else None) if answer.content else None
        assert entry["job_id"] == made
    assert away.commands == []


@pytest.mark.parametrize("wait", ["", "?wait=9"])
async def test_a_repetition_leaves_an_entry_that_says_so(watch: Watch, agent: GoAgent, wait: str) -> None:
    await watch.site.offline_agent("host-2")
    queued = await watch.site.deploy("late", wait=0, agent_id=2, when_offline="queue")
    await watch.news()
    keyed = (("/deploy", DEPLOY), ("/projects/web/stop", None), (f"/jobs/{queued['job_id']}/cancel", None))
    for number, (path, body) in enumerate(keyed):
        query = "" if "cancel" in path else wait
        entries = []
        for _ in range(3):
            key = {"Idempotency-Key": f"key-{number}"}
            answer = await watch.send("POST", path + query, json=body, headers=key)
            assert answer.is_success
            entries.append(await watch.only(answer))
        assert [entry["outcome"] for entry in entries] == ["done", "repeated", "repeated"]
        assert len({entry["job_id"] for entry in entries}) == 1
        other = await watch.send("POST", "/deploy", json={**DEPLOY, "project_name": "x"}, headers=key)
        assert (await watch.only(other))["outcome"] == "idempotency_key_reused"


async def test_what_an_operation_refuses_leaves_one_entry_that_says_about_what(watch: Watch, agent: GoAgent) -> None:
    await watch.site.deploy("web")
    limited = {"name": "ci of shop", "role": "deployer", "projects": ["shop-*"]}
    token = (await watch.send("POST", "/tokens", json=limited)).json()["token"]
    await watch.news()
    refused = [
        ("POST", "/deploy", DEPLOY, token, "not_allowed", "project web"),
        ("POST", "/projects/web/stop", None, token, "not_allowed", "project web"),
        ("POST", "/deploy", {**DEPLOY, "project_name": "sh op"}, None, "invalid_input", "project sh op"),
        ("POST", "/deploy", {**DEPLOY, "project_name": "a\x00b\n" * 99}, None, "invalid_input", "project " + "ab" * 96),
        ("POST", "/deploy", {**DEPLOY, "project_name": "WEB"}, None, "name_collision", "project WEB on agent 1"),
        ("POST", "/deploy", {**DEPLOY, "compose_file": "services: []"}, None, "invalid_compose_file", "project web"),
        ("POST", "/deploy", {**DEPLOY, "agent_id": 9}, None, "agent_not_found", "project web"),
        ("POST", "/projects/nothing/stop", None, None, "project_not_found", "project nothing"),
        ("DELETE", "/agents/1", None, None, "agent_connected", "agent 1"),
        ("DELETE", "/tokens/99", None, None, "token_not_found", "token 99"),
        ("POST", "/organizations", {"name": "default"}, None, "name_taken", "organization default"),
        ("DELETE", "/agents/x%0Ay", None, None, "invalid_input", "agent xy"),
    ]
    for method, path, body, sender, code, about in refused:
        answer = await watch.send(method, path, sender, json=body)
        assert answer.json()["code"] == code, answer.text
        entry = await watch.only(answer)
        assert (entry["outcome"], entry["job_id"], entry["result_id"]) == (code, None, None)
        assert entry["object"] == about


async def test_reading_and_strangers_leave_nothing(watch: Watch, agent: GoAgent) -> None:
    await watch.site.deploy("web")
    await watch.news()
    await watch.site.get("/projects/web/status")
    await watch.site.get("/tokens")
    for token in ("wrong", make_token(TokenKind.API)):
        assert (await watch.send("POST", "/deploy", token, json=DEPLOY)).status_code == 401
    assert await watch.news() == []


async def lost(site: Site) -> float:
    text = (await site.client.get("/metrics")).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("instadeploy_audit_lost_total")))


async def test_a_caller_is_refused_the_same_when_there_is_no_room_to_note_it(watch: Watch) -> None:
    watch.site.plane.store._disk.is_full = True
    answer = await watch.send("POST", "/deploy", watch.viewer, json=DEPLOY)
    assert answer.json()["code"] == "not_allowed"
    assert await lost(watch.site) == 1
    watch.site.plane.store._disk.is_full = False
    assert await watch.news() == []


async def test_who_was_refused_for_a_store_that_is_away_does_not_wait_for_it_again(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def away(*change: Any) -> None:
        asked.append(change)
        raise StoreUnavailableError("away")

    monkeypatch.setattr(watch.site.plane.store, "write", away)
    answer = await watch.send("POST", "/organizations", json={"name": "acme"})
    assert answer.json()["code"] == StoreUnavailableError.code
    assert len(asked) == await lost(watch.site) == 1


async def test_a_host_that_becomes_an_agent_leaves_an_entry_and_so_do_refusals(watch: Watch) -> None:
    site = watch.site
    made = (await watch.send("POST", "/agents/enroll", json={"name": "new hosts"})).json()
    await watch.news()
    can = ("X-Agent-Capabilities", "enroll")
    codes = []
    for hostname, capability in (("new-1", ("X-Other", "")), ("new-1", can), ("new-2", can), ("", can)):
        headers: list[tuple[str, str | bytes]] = [
            *(("Authorization", f"Bearer {made['token']}"), ("X-Agent-Hostname", hostname), capability)
        ]
        try:
            async with await RawSocket.upgrade(site.url.replace("http", "ws", 1) + "/ws", headers):
                codes.append("done")
        except RefusalError as refused:
            codes.append(str(refused.status))
    assert codes == ["403", "done", "401", "400"]
    entries = await watch.news()
    told = [(entry["object"], entry["outcome"], entry["result_id"]) for entry in entries]
    assert told == [
        ("host new-1", "cannot_enroll", None),
        ("host new-1", "done", 1),
        ("host new-2", "unauthorized", None),
        ("host", "invalid_hostname", None),
    ]
    who = {(entry["action"], entry["actor"], entry["token_id"], entry["role"]) for entry in entries}
    assert who == {("enroll_agent", "new hosts", made["id"], "")}
