"""Every route lets in the roles that it takes and no other, before it looks at anything else of a request.

Roles are the document's (`x-required-role`), and each is listed here once more: a route that is new, or that takes
another role than before, fails until somebody has decided on it.
"""

from typing import Any

import pytest
import pytest_asyncio

from control_plane.core.access import Actor, Role
from tests.api.test_openapi import PUBLIC, every_operation, operations
from tests.support.app import Site, client_with, contract
from tests.support.tenants import Tenant, tenant

in_the_module = pytest.mark.asyncio(loop_scope="module")

TAKES = {
    Role.VIEWER: {
        "get_agent", "get_compose_file", "get_deployment", "get_job", "get_me", "get_metrics", "get_project",
        "get_project_status", "list_agents", "list_deployments", "list_events", "list_jobs", "list_projects",
    },
    Role.DEPLOYER: {"cancel_job", "deploy", "stop_project"},
    Role.OPERATOR: {
        "change_agent", "check_agent_health", "create_agent_token", "create_enrollment", "forget_agent",
        "revoke_agent_token",
    },
    Role.ADMIN: {"create_token", "export_audit", "list_audit", "list_tokens", "revoke_token", "rotate_token"},
    Role.ROOT: {"create_organization", "list_organizations"},
}  # fmt: skip
NOWHERE = {
    "name": "nowhere",
    "token_id": "4242",
    "agent_id": "4242",
    "deployment_id": "4242",
    "job_id": "01a209fb-c730-735a-bcc1-eea7d4ab715a",
}
BROKEN = b'{"broken'
JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(shared_site: Site) -> dict[Role, Tenant]:
    """A caller of each role, in the first organisation."""
    return {role: await tenant(shared_site, role.value) for role in Role}


def test_each_operation_but_the_public_ones_takes_the_role_that_was_decided_on() -> None:
    told: dict[Role, set[str]] = {role: set() for role in Role}
    for param in operations():
        operation = param.values[2]
        if operation["operationId"] not in PUBLIC:
            told[Role(operation["x-required-role"])].add(operation["operationId"])
    assert told == TAKES


@in_the_module
@pytest.mark.promise("roles")
@every_operation
async def test_an_operation_lets_in_just_the_roles_that_are_enough(
    shared_site: Site, callers: dict[Role, Tenant], method: str, path: str, operation: dict[str, Any]
) -> None:
    await check_roles(shared_site, callers, method, path, operation)


async def check_roles(
    site: Site, callers: dict[Role, Tenant], method: str, path: str, operation: dict[str, Any]
) -> None:
    """Assert that each caller is let in if its role is enough, whatever else is wrong with its request."""
    if operation["operationId"] in PUBLIC:
        return
    needed, url = Role(operation["x-required-role"]), path.format(**NOWHERE)
    for role, caller in callers.items():
        for params in ({}, {"typo": "1"}):
            answer = await caller.client.request(method, url, params=params, content=BROKEN, headers=JSON)
            assert answer.status_code != 401
            code = answer.json()["code"] if answer.is_error else ""
            allowed = (answer.status_code, code) != (403, "not_allowed")
            assert allowed == role.may(needed), f"{method} {path} answered a {role} {answer.status_code} {code}"
            assert allowed or needed.value in answer.json()["detail"]
    async with client_with(site.url, "no-token-of-ours") as stranger:
        assert (await stranger.request(method, url, content=BROKEN, headers=JSON)).status_code == 401


@in_the_module
@pytest.mark.control("roles")
async def test_a_route_that_does_not_ask_for_the_role_would_be_found(
    shared_site: Site, callers: dict[Role, Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Actor, "require", lambda _actor, _needed: None)
    operation = contract().document["paths"]["/deploy"]["post"]
    with pytest.raises(AssertionError, match="POST /deploy answered a viewer 422"):
        await check_roles(shared_site, callers, "POST", "/deploy", operation)
