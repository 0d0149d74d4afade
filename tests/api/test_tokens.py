"""The life of a caller's token: made, used, rotated, expired, revoked; who may do that to whom; and what is kept."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import time_machine

from control_plane.core.access import Role
from control_plane.loops import tokens as loop
from tests.support.app import Site, client_with
from tests.support.tenants import Tenant, made, organization, tenant


async def status(site: Site, token: str) -> int:
    """Return what GET /me answers to whoever presents a token."""
    async with client_with(site.url, token) as client:
        return (await client.get("/me")).status_code


async def row(site: Site, token_id: int) -> Any:
    rows = (await site.get("/tokens"))["tokens"]
    return next((row for row in rows if row["id"] == token_id), None)


async def test_a_token_is_shown_once_and_says_of_itself_what_it_was_made_with(site: Site) -> None:
    body: dict[str, Any] = {"name": "ci", "role": "deployer", "projects": ["shop-*"], "labels": {"env": "prod"}}
    caller = await tenant(site, **body)
    assert caller.token.startswith("ida_")
    me = await caller.get("/me")
    assert {name: me[name] for name in body} == body
    assert (me["token_id"], me["organization"]["name"]) == (caller.token_id, "default")
    listed = await row(site, caller.token_id)
    assert {name: listed[name] for name in body} == body
    assert "token" not in listed
    assert caller.token not in str(await site.get("/tokens"))


async def test_its_last_use_is_known_within_seconds(site: Site) -> None:
    caller = await tenant(site, "viewer")
    assert (await row(site, caller.token_id))["last_used_at"] is None
    before = datetime.now(UTC)
    await caller.get("/me")
    await loop.run_once(site.plane, Path("no-errands"))
    assert loop.INTERVAL_SECONDS <= 5
    used_at = (await row(site, caller.token_id))["last_used_at"]
    assert before <= datetime.fromisoformat(used_at) <= datetime.now(UTC)
    for _ in range(3):
        await caller.get("/me")
    await loop.run_once(site.plane, Path("no-errands"))
    assert (await row(site, caller.token_id))["last_used_at"] == used_at


async def test_rotated_without_an_overlap_the_old_one_is_bad_at_once(site: Site) -> None:
    caller = await tenant(site, "viewer", projects=["shop-*"])
    new = await site.post(f"/tokens/{caller.token_id}/rotate")
    assert (new["id"], new["role"], new["projects"]) == (caller.token_id, "viewer", ["shop-*"])
    assert (await status(site, caller.token), await status(site, new["token"])) == (401, 200)


async def test_rotated_with_an_overlap_the_old_one_is_good_until_then_and_not_after(site: Site) -> None:
    caller = await tenant(site, "viewer")
    new = await site.post(f"/tokens/{caller.token_id}/rotate", {"overlap_seconds": 3600})
    until = datetime.fromisoformat(new["previous_until"])
    assert timedelta(minutes=59) < until - datetime.now(UTC) <= timedelta(hours=1)
    for moment, expected in ((until - timedelta(seconds=1), (200, 200)), (until, (401, 200))):
        with time_machine.travel(moment, tick=False):
            assert (await status(site, caller.token), await status(site, new["token"])) == expected


async def test_an_expired_token_is_bad_from_that_moment_on_and_cannot_be_rotated(site: Site) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    caller = await tenant(site, "viewer", expires_at=end.isoformat())
    with time_machine.travel(end - timedelta(seconds=1), tick=False):
        assert await status(site, caller.token) == 200
    with time_machine.travel(end, tick=False):
        assert await status(site, caller.token) == 401
        answer = await site.client.post(f"/tokens/{caller.token_id}/rotate")
        assert (answer.status_code, answer.json()["code"]) == (404, "token_not_found")


@pytest.mark.parametrize("moment", ["2020-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
async def test_an_end_that_cannot_be_is_refused(site: Site, moment: str) -> None:
    answer = await site.client.post("/tokens", json={"name": "t", "role": "viewer", "expires_at": moment})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_a_revoked_token_is_bad_at_once_and_stays_so(site: Site) -> None:
    caller = await tenant(site, "viewer")
    for _ in range(2):
        assert (await site.client.delete(f"/tokens/{caller.token_id}")).status_code == 204
        assert await status(site, caller.token) == 401
    assert await row(site, caller.token_id) is None
    answer = await site.client.post(f"/tokens/{caller.token_id}/rotate")
    assert (answer.status_code, answer.json()["code"]) == (404, "token_not_found")


@pytest.mark.parametrize("maker", list(Role)[3:])
@pytest.mark.parametrize("role", list(Role))
async def test_nobody_makes_rotates_or_revokes_a_role_above_its_own(site: Site, maker: Role, role: Role) -> None:
    caller, other = await tenant(site, maker.value), await tenant(site, role.value)
    body = {"name": "t", "role": role.value}
    attempts = [
        ("POST", "/tokens", body), ("POST", f"/tokens/{other.token_id}/rotate", None),
        ("DELETE", f"/tokens/{other.token_id}", None),
    ]  # fmt: skip
    for method, path, sent in attempts:
        if maker.may(role):
            await caller.does(method, path, sent)
        else:
            assert await caller.refused(method, path, sent) == (403, "not_allowed")
            assert await status(site, other.token) == 200


@pytest.mark.parametrize("limits", [{"projects": ["*"]}, {"labels": {"env": "prod"}}], ids=str)
async def test_a_limited_token_manages_none_and_learns_of_none(site: Site, limits: dict[str, Any]) -> None:
    caller, other = await tenant(site, "admin", **limits), await tenant(site, "viewer")
    for token_id in (other.token_id, caller.token_id, 4242):
        assert await caller.refused("POST", f"/tokens/{token_id}/rotate") == (403, "not_allowed")
        assert await caller.refused("DELETE", f"/tokens/{token_id}") == (403, "not_allowed")
    assert await caller.refused("POST", "/tokens", {"name": "t", "role": "viewer"}) == (403, "not_allowed")


async def test_an_admin_manages_its_own_organisation_and_root_all_of_them(site: Site) -> None:
    other = await organization(site, "other")
    ours, theirs = await tenant(site, "admin"), await tenant(site, "admin", organization_id=other)
    root, mine = await tenant(site, "root"), await theirs.does("POST", "/tokens", {"name": "t", "role": "viewer"})
    assert mine["organization_id"] == other
    for organization_id in (1, 4242):
        body = {"name": "t", "role": "viewer", "organization_id": organization_id}
        assert await theirs.refused("POST", "/tokens", body) == (403, "not_allowed")
    for caller, foreign in ((ours, theirs), (theirs, ours), (theirs, root)):
        assert await caller.refused("DELETE", f"/tokens/{foreign.token_id}") == (404, "token_not_found")
        assert await caller.refused("POST", f"/tokens/{foreign.token_id}/rotate") == (404, "token_not_found")
    new = await root.does("POST", f"/tokens/{theirs.token_id}/rotate")
    assert new["organization_id"] == other
    assert (await status(site, theirs.token), await status(site, new["token"])) == (401, 200)
    await root.does("DELETE", f"/tokens/{theirs.token_id}")
    assert await status(site, new["token"]) == 401
    body = {"name": "t", "role": "root", "organization_id": other}
    assert await root.refused("POST", "/tokens", body) == (422, "invalid_input")
    assert await root.refused("POST", "/tokens", {**body, "organization_id": 4242}) == (404, "organization_not_found")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": " a"}, {"name": "a\n"}, {"name": "a" * 101}, {"role": "god"}, {"role": None},
        {"projects": ["a/b"]}, {"projects": [""]}, {"projects": ["a"] * 51}, {"projects": ["a" * 64]},
        {"labels": {"-": "a"}}, {"labels": {"a": ""}}, {"labels": {"a": "b" * 64}}, {"organization_id": "1"},
        {"expires_at": "2099-01-01T00:00:00"}, {"token": "mine"},
    ],
    ids=str,
)  # fmt: skip
async def test_what_cannot_be_a_token_is_refused(site: Site, wrong: dict[str, Any]) -> None:
    answer = await site.client.post("/tokens", json={"name": "t", "role": "viewer", **wrong})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input"), answer.text
    assert (await site.get("/tokens"))["tokens"] == []


async def test_an_enrolment_is_revoked_like_a_token_and_not_rotated(site: Site) -> None:
    enrolment = await made(site.client, "/agents/enroll", {})
    answer = await site.client.post(f"/tokens/{enrolment['id']}/rotate")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert (await row(site, enrolment["id"]))["kind"] == "enrollment"
    assert (await site.client.delete(f"/tokens/{enrolment['id']}")).status_code == 204
    assert await row(site, enrolment["id"]) is None


async def test_an_agents_own_token_is_not_one_of_the_callers(site: Site) -> None:
    agent = await site.agent()
    await made(site.client, f"/agents/{await site.id_of(agent)}/token", {})
    assert (await site.get("/tokens"))["tokens"] == []
    for method, path in (("POST", "/tokens/1/rotate"), ("DELETE", "/tokens/1")):
        answer = await site.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "token_not_found")


async def test_tokens_come_in_pages_newest_first(site: Site) -> None:
    callers = [await tenant(site, "viewer") for _ in range(5)]
    found, cursor = [], None
    while True:
        page = await site.get("/tokens", limit=2, **({"cursor": cursor} if cursor else {}))
        found += [row["id"] for row in page["tokens"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == [caller.token_id for caller in reversed(callers)]


@pytest.mark.promise("log forging")
async def test_no_token_is_in_the_database_or_in_a_log(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "control_plane"):
        caller: Tenant = await tenant(site, "root")
        shown = [caller.token, (await made(site.client, "/agents/enroll", {}))["token"]]
        shown.append((await site.post(f"/tokens/{caller.token_id}/rotate", {"overlap_seconds": 60}))["token"])
        await site.agent()
        shown.append((await made(site.client, "/agents/1/token", {}))["token"])
        async with httpx.AsyncClient(base_url=site.url, trust_env=False) as stranger:
            for token in shown:
                await stranger.get("/me", headers={"Authorization": f"Bearer {token}"})
                await stranger.get(f"/agents?token={token}")
    await loop.run_once(site.plane, Path("no-errands"))
    files = {name: (tmp_path / name).read_bytes() for name in ("control_plane.db", "control_plane.db-wal")}
    for token in shown:
        assert token not in caplog.text
        for name, content in files.items():
            assert token.encode() not in content, name
            assert token[4:30].encode() not in content, name


@pytest.mark.parametrize(
    ("path", "body", "rows"),
    [
        ("/tokens", b'{"name": "mine", "role": "admin"}', "tokens"),
        ("/deploy", b'{"project_name": "mine", "compose_file": "services: {web: {image: nginx}}"}', "jobs"),
    ],
)
async def test_a_token_that_is_revoked_while_a_body_is_on_its_way_is_bad_when_it_is_there(
    site: Site, path: str, body: bytes, rows: str
) -> None:
    await site.agent()
    caller = await tenant(site, "admin")
    at = urlsplit(site.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {caller.token}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:5])
    await loop.run_once(site.plane, Path("no-errands"))
    while (await row(site, caller.token_id))["last_used_at"] is None:  # until its head was looked at
        await loop.run_once(site.plane, Path("no-errands"))
    assert (await site.client.delete(f"/tokens/{caller.token_id}")).status_code == 204
    writer.write(body[5:])
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 401 "), answer
    assert (await site.get(f"/{rows}"))[rows] == []
