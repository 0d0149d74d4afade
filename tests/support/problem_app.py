"""The small app that tests of the HTTP edge drive, and what must hold for every problem it answers."""

from types import SimpleNamespace
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field, field_validator

from control_plane.api.auth import needs, protected_router
from control_plane.api.edge import install_edge
from control_plane.api.problems import Problem, problem_responses
from control_plane.core import errors
from control_plane.core.access import Role
from tests.support.http import client_of

SECRET = "s3cret-canary"


class NoStore:
    """Where the audit of this app's refusals goes: nowhere."""

    async def write(self, *_change: object) -> None: ...


WITHOUT_STORE = SimpleNamespace(store=NoStore())


class Deploy(BaseModel):
    model_config = ConfigDict(extra="forbid")

    project_name: str
    ports: list[int] = []
    timeout_seconds: int | None = Field(default=None, ge=10, le=86_400)

    @field_validator("project_name")
    @classmethod
    def _must_be_a_word(cls, value: str) -> str:
        if value == "bad":
            raise ValueError("Use another name")
        return value


def make_app(error: Exception | None = None) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None)

    app.state.api_tokens = None
    app.state.control_plane = WITHOUT_STORE
    router = protected_router()

    @router.post("/deploy", responses=problem_responses(errors.NoAgentsError), openapi_extra=needs(Role.DEPLOYER))
    async def deploy(body: Deploy) -> dict[str, str]:
        return {"project": body.project_name}

    @app.post("/loose")
    async def loose(body: Deploy) -> None: ...

    @app.get("/agents")
    async def agents(limit: Annotated[int, Query(le=1000)] = 10) -> dict[str, int]:
        return {"limit": limit}

    @app.get("/fail", response_model=Deploy)
    async def fail() -> Any:
        if error is not None:
            raise error
        return {"project_name": [SECRET]}

    app.include_router(router)
    install_edge(app)
    return app


def checked(response: httpx.Response, status: int, code: str) -> Problem:
    """Assert what holds for every problem, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    problem = Problem.model_validate_json(response.content, strict=True)
    assert (problem.status, problem.code) == (status, code)
    assert problem.detail.endswith((".", '"')) or problem.fields
    return problem


async def post(content: bytes, content_type: str | None = "application/json") -> httpx.Response:
    async with client_of(make_app()) as client:
        headers = {} if content_type is None else {"Content-Type": content_type}
        return await client.post("/deploy", content=content, headers=headers)
