"""The OpenAPI document says all that its readers need, and what it says is so."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from control_plane.core.errors import ControlPlaneError
from tests.support.app import Site, contract
from tests.support.contract import PROBLEM, declared_codes
from tests.support.go_agent import GoAgent
from tests.support.problem_app import checked

DOCUMENT = contract().document
PUBLIC = {"get_service", "get_health", "get_readiness", "get_installer", "get_cloud_config", "get_agent_file"}
SAMPLE = {
    "name": "hello",
    "token_id": "1",
    "agent_id": "1",
    "deployment_id": "1",
    "job_id": "01a209fb-c730-735a-bcc1-eea7d4ab715a",
}
FIRST = ["/deploy", "/projects/{name}/stop", "/tokens"]
"""Examples of these are sent first: others need what comes of them."""

Operation = dict[str, Any]


def operations() -> Iterator[Any]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield pytest.param(method.upper(), path, operation, id=operation["operationId"])


every_operation = pytest.mark.parametrize(("method", "path", "operation"), tuple(operations()))


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Follow `$ref`, also in `anyOf` with null."""
    for candidate in [schema, *schema.get("anyOf", ())]:
        if "$ref" in candidate:
            found: dict[str, Any] = DOCUMENT["components"]["schemas"][candidate["$ref"].rpartition("/")[2]]
            return found
    return schema


def body_schema(operation: Operation) -> dict[str, Any]:
    return resolved(operation["requestBody"]["content"]["application/json"]["schema"])


def test_each_operation_has_an_id_of_its_own() -> None:
    ids = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(set(ids)) == len(ids)


@every_operation
def test_each_operation_is_described_with_all_that_it_takes(method: str, path: str, operation: Operation) -> None:
    assert operation["tags"]
    assert operation["summary"]
    assert operation["description"].endswith(".")
    for parameter in operation.get("parameters", ()):
        assert parameter.get("description", "").endswith("."), parameter["name"]
    if "requestBody" in operation:
        for name, field in body_schema(operation)["properties"].items():
            told = [part.get("description", "") for part in (field, *field.get("anyOf", ()))]
            assert any(sentence.endswith(".") for sentence in told), name


@every_operation
def test_each_operation_says_whether_it_needs_the_token(method: str, path: str, operation: Operation) -> None:
    if operation["operationId"] in PUBLIC:
        assert "security" not in operation
        assert "401" not in operation["responses"]
        return
    [requirement] = operation["security"]
    scheme = DOCUMENT["components"]["securitySchemes"][next(iter(requirement))]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert "401" in operation["responses"]


@pytest.mark.promise("closed")
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["no token", "a wrong token"])
async def test_every_operation_but_the_public_ones_is_closed_to_strangers(
    site: Site, agent: GoAgent, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(base_url=site.url, headers=headers, trust_env=False, verify=False) as stranger:  # noqa: S501
        for param in operations():
            method, path, operation = param.values
            response = await stranger.request(method, path.format(**SAMPLE))
            if operation["operationId"] in PUBLIC:
                assert response.status_code == 200
            else:
                checked(response, 401, "unauthorized")
    assert not agent.commands


def test_each_error_has_an_example_under_its_own_code() -> None:
    for param in operations():
        for status, response in param.values[2]["responses"].items():
            if status.startswith(("2", "3")):
                continue
            content = response["content"][PROBLEM]
            for code in declared_codes(content):
                example = content["examples"][code]["value"]
                contract().validator("#/components/schemas/Problem").validate(example)
                assert (example["status"], example["code"]) == (int(status), code)
            assert (status in {"429", "503", "507"}) == ("Retry-After" in response.get("headers", {}))


def test_every_error_that_an_api_user_can_meet_is_declared_somewhere() -> None:
    declared = {
        code
        for param in operations()
        for status, response in param.values[2]["responses"].items()
        if not status.startswith(("2", "3"))
        for code in declared_codes(response["content"][PROBLEM])
    }
    leaves = {kind.code for kind in _tree(ControlPlaneError) if not kind.__subclasses__()}
    told_to_agents_only = {"hostname_taken", "hostname_bound"}
    assert leaves - declared == told_to_agents_only


def _tree(kind: type[ControlPlaneError]) -> list[type[ControlPlaneError]]:
    return [
        kind,
        *(found for child in kind.__subclasses__() if "tests" not in child.__module__ for found in _tree(child)),
    ]


def _turn(param: Any) -> int:
    path = param.values[1]
    return FIRST.index(path) if path in FIRST else len(FIRST)


async def test_the_examples_of_bodies_can_be_sent_as_they_are_and_succeed(site: Site, agent: GoAgent) -> None:
    sent = 0
    for param in sorted(operations(), key=_turn):
        method, path, operation = param.values
        if "requestBody" not in operation:
            continue
        examples = body_schema(operation)["examples"]
        for example in examples:
            waits = any(parameter["name"] == "wait" for parameter in operation.get("parameters", ()))
            params = {"wait": 30} if waits else {}
            answer = await site.client.request(method, path.format(**SAMPLE), params=params, json=example)
            assert answer.is_success, answer.text
            assert not waits or answer.json()["status"] == "completed", answer.text
            sent += 1
    assert sent >= 3


async def test_the_parameters_examples_are_taken(site: Site, agent: GoAgent) -> None:
    await site.deploy("hello")
    job_id = (await site.get("/jobs"))["jobs"][0]["id"]
    for param in operations():
        method, path, _ = param.values
        if method == "GET":
            assert (await site.client.get(path.format(**{**SAMPLE, "job_id": job_id}))).status_code == 200
