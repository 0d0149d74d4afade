"""The audit as admins read it: narrowed, page by page, and exported to be verified elsewhere."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.core.audit import CHAIN_START, HASHED
from control_plane.operations import auditing
from tests.support.app import WEB, Site
from tests.support.go_agent import GoAgent
from tests.support.problem_app import checked

DOCUMENT = (Path(__file__).parents[2] / "docs/audit.md").read_text(encoding="utf-8")
[RECIPE] = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


async def make_token(site: Site, role: str, **fields: Any) -> httpx.Headers:
    made = await site.client.post("/tokens", json={"name": f"a {role}", "role": role, **fields})
    return httpx.Headers({"Authorization": f"Bearer {made.json()['token']}"})


async def listed(site: Site, **filters: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = (await site.get("/audit", limit=1000, **filters))["entries"]
    return entries


@pytest.fixture
async def busy(site: Site, agent: GoAgent) -> Site:
    """A control plane of which two tokens and API_TOKEN asked for this and that, some of it in vain."""
    deployer, viewer = [await make_token(site, role) for role in ("deployer", "viewer")]
    for headers in (deployer, viewer, None):
        for name in ("web", "sh op"):
            await site.client.post("/deploy", json={"project_name": name, "compose_file": WEB}, headers=headers)
        await site.client.post("/projects/web/stop", params={"wait": 9}, headers=headers)
    return site


async def test_filters_can_be_combined(busy: Site) -> None:
    everything = await listed(busy)
    assert len(everything) == 2 + 9
    for token, action, outcome in itertools.product(
        (None, 1, 2), (None, "deploy", "stop_project"), (None, "done", "not_allowed")
    ):
        some = {"token_id": token, "action": action, "outcome": outcome}
        some = {name: value for name, value in some.items() if value is not None}
        expected = [entry for entry in everything if all(entry[name] == value for name, value in some.items())]
        assert await listed(busy, **some) == expected, some
    since, until = everything[-3]["at"], everything[2]["at"]
    assert await listed(busy, since=since, until=until) == everything[3:-2]


async def test_pages_hold_each_entry_once_though_new_ones_arrive(busy: Site) -> None:
    for some in ({}, {"action": "deploy"}, {"outcome": "not_allowed"}, {"token_id": 1}):
        old = await listed(busy, **some)
        page = await busy.get("/audit", limit=2, **some)
        seen = list(page["entries"])
        while page["next_cursor"]:
            await busy.deploy(f"late-{len(seen)}")
            page = await busy.get("/audit", limit=2, cursor=page["next_cursor"], **some)
            seen += page["entries"]
        assert seen == old


@pytest.mark.parametrize("path", ["/audit", "/audit/export"])
async def test_only_admins_that_reach_all_of_their_organization_read_it(site: Site, path: str) -> None:
    for role, fields, status in (
        ("viewer", {}, 403),
        ("operator", {}, 403),
        ("admin", {}, 200),
        ("admin", {"projects": ["shop-*"]}, 403),
        ("admin", {"labels": {"env": "prod"}}, 403),
    ):
        answer = await site.client.get(path, headers=await make_token(site, role, **fields))
        assert answer.status_code == status, (role, fields)


async def test_nobody_reads_what_is_of_another_organization(site: Site) -> None:
    organization = (await site.client.post("/organizations", json={"name": "acme"})).json()["id"]
    acme = await make_token(site, "admin", organization_id=organization)
    await site.client.post("/tokens", json={"name": "theirs", "role": "viewer"}, headers=acme)
    theirs = (await site.client.get("/audit", headers=acme)).json()["entries"]
    assert [(entry["action"], entry["previous_hash"]) for entry in theirs] == [("create_token", CHAIN_START)]
    assert {entry["actor"] for entry in await listed(site)} == {"API_TOKEN"}
    lines = (await site.client.get("/audit/export", headers=acme)).text.splitlines()
    assert [json.loads(line)["hash"] for line in lines] == [theirs[0]["hash"]]


@pytest.mark.parametrize(
    "params", [{"token_id": 0}, {"action": "DROP"}, {"outcome": ""}, {"since": "x"}, {"kind": "x"}]
)
async def test_what_is_not_valid_is_named(site: Site, params: dict[str, Any]) -> None:
    problem = checked(await site.client.get("/audit", params=params), 422, "invalid_input")
    assert [each.field for each in problem.fields] == list(params)


def verify(text: str, tmp_path: Path) -> tuple[int, str]:
    """Run the recipe of the document on an export; returns its exit status and what it said."""
    (tmp_path / "audit.jsonl").write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", RECIPE, str(tmp_path / "audit.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


async def test_an_export_is_whole_and_its_chain_holds_elsewhere(
    busy: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "EXPORT_PAGE", 3)
    await make_token(busy, "viewer", name='"ü" \\ 🚢')
    entries = await listed(busy)
    answer = await busy.client.get("/audit/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [list(row) for row in rows] == [[*HASHED, "hash"]] * len(entries)
    assert [row["hash"] for row in rows] == [entry["hash"] for entry in reversed(entries)]
    assert verify(answer.text, tmp_path) == (0, f"whole, up to the hash {rows[-1]['hash']}\n")
    lines = answer.text.splitlines(keepends=True)
    assert "entry 5: does not follow" in verify("".join(lines[:3] + lines[4:]), tmp_path)[1]
    assert "entry 4: is not what its hash" in verify(answer.text.replace("sh op", "shop", 1), tmp_path)[1]


async def test_a_period_is_cut_out_of_the_chain(busy: Site, tmp_path: Path) -> None:
    entries = list(reversed(await listed(busy)))
    answer = await busy.client.get("/audit/export", params={"since": entries[3]["at"], "until": entries[8]["at"]})
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["id"] for row in rows] == [entry["id"] for entry in entries[3:8]]
    assert verify(answer.text, tmp_path)[0] == 0
    nothing = await busy.client.get("/audit/export", params={"until": "2020-01-01"})
    assert (nothing.status_code, nothing.text) == (200, "")
