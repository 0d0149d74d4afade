"""The OpenAPI document declares every error that can be answered, with examples that are valid."""

import json
from typing import Any

from jsonschema_rs import validator_for

from control_plane.api.auth import needs, protected_router
from control_plane.api.problems import problem_responses
from control_plane.core import errors
from control_plane.core.access import Role
from tests.support.problem_app import Deploy, make_app


def openapi_of_all_errors() -> dict[str, Any]:
    app = make_app()
    router = protected_router()
    kinds = [errors.AgentNotFoundError, errors.ProjectNotFoundError, errors.NoAgentsError]

    @router.post("/protected/{name}", responses=problem_responses(*kinds), openapi_extra=needs(Role.DEPLOYER))
    async def protected(name: str, body: Deploy) -> None: ...

    app.include_router(router)
    return app.openapi()


def test_openapi_declares_what_every_route_can_answer() -> None:
    document = openapi_of_all_errors()
    operations = {path: next(iter(item.values())) for path, item in document["paths"].items()}
    declared = {path: set(operation["responses"]) for path, operation in operations.items()}
    with_body = {"200", "408", "413", "415", "400", "421", "422", "500"}
    assert declared["/protected/{name}"] == with_body | {"401", "403", "404", "429", "503"}
    assert declared["/deploy"] == with_body | {"401", "403", "429", "503"}
    assert declared["/agents"] == {"200", "400", "421", "422", "500"}
    assert declared["/fail"] == {"200", "400", "421", "500"}
    assert "ValidationError" not in json.dumps(document)


def test_examples_in_openapi_are_valid_problems_and_name_each_code() -> None:
    document = openapi_of_all_errors()
    responses = document["paths"]["/protected/{name}"]["post"]["responses"]
    validator = validator_for({**document["components"]["schemas"]["Problem"], "components": document["components"]})
    for status, response in responses.items():
        if status == "200":
            continue
        content = response["content"]["application/problem+json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        examples = content.get("examples") or {"one": {"value": content["example"]}}
        for example in examples.values():
            validator.validate(example["value"])
            assert example["value"]["status"] == int(status)
    not_found = responses["404"]["content"]["application/problem+json"]["examples"]
    assert set(not_found) == {"agent_not_found", "project_not_found"}
    assert responses["503"]["headers"]["Retry-After"]["example"] == 10
    assert responses["401"]["headers"]["WWW-Authenticate"]["example"] == "Bearer"
