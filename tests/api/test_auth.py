"""Nothing behind the token is reached without it, and nothing is read of a request that has none."""

from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from control_plane.api.auth import needs, protected_router
from control_plane.api.edge import install_edge
from control_plane.core.access import Role
from control_plane.core.failure_limits import FailureLimits
from control_plane.core.tokens import TokenChecker, TokenKind
from tests.support.http import client_of

TOKEN = "the-right-token"


class _NoTokens:
    def find(self, digest: bytes, kind: TokenKind) -> None:
        return None


NO_TOKENS = _NoTokens()
"""The book of a control plane that knows no token but the one that it was started with."""


class Body(BaseModel):
    name: str


def make_app(tokens: TokenChecker | None) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.state.api_tokens = tokens
    app.state.control_plane = SimpleNamespace(token_book=NO_TOKENS)
    app.state.failure_limits = FailureLimits(100, lambda _address: None)
    router = protected_router(tags=["things"])

    @router.post("/things/{name}", openapi_extra=needs(Role.DEPLOYER))
    async def make(name: str, body: Body) -> dict[str, str]:
        return {"made": f"{name}/{body.name}"}

    app.include_router(router, prefix="/v1")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    install_edge(app)
    return app


@pytest.fixture
def app() -> FastAPI:
    return make_app(TokenChecker.of_plain(TOKEN))


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer   {TOKEN}"])
async def test_the_right_token_is_let_in(app: FastAPI, header: str) -> None:
    async with client_of(app) as client:
        response = await client.post("/v1/things/a", json={"name": "b"}, headers={"Authorization": header})
    assert response.json() == {"made": "a/b"}


@pytest.mark.promise("closed")
@pytest.mark.parametrize(
    ("header", "told"),
    [
        (None, "Authorization: Bearer"),
        ("", "Authorization: Bearer"),
        ("Bearer", "Authorization: Bearer"),
        (f"Basic {TOKEN}", "Authorization: Bearer"),
        (TOKEN, "Authorization: Bearer"),
        ("Bearer wrong", "not valid"),
        (f"Bearer {TOKEN}x", "not valid"),
        (f"Bearer {TOKEN[:-1]}", "not valid"),
        ("Bearer \xe9\xff", "not valid"),
        (f"Bearer {'x' * 60_000}", "not valid"),
    ],
)
async def test_everything_else_is_told_what_to_send(app: FastAPI, header: str | None, told: str) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    async with client_of(app) as client:
        response = await client.post("/v1/things/a", json={"name": "b"}, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["code"] == "unauthorized"
    assert told in response.json()["detail"]
    assert TOKEN not in response.text


@pytest.mark.promise("closed")
@pytest.mark.parametrize("content", [b"{", b"[" * 50_000, b"{}", b"\xff"])
async def test_without_a_token_the_body_is_not_even_parsed(app: FastAPI, content: bytes) -> None:
    async with client_of(app) as client:
        headers = {"Content-Type": "application/json"}
        response = await client.post("/v1/things/a", content=content, headers=headers)
    assert response.status_code == 401


async def test_public_routes_need_no_token(app: FastAPI) -> None:
    async with client_of(app) as client:
        assert (await client.get("/health")).status_code == 200


async def test_no_token_is_asked_for_where_authentication_is_off() -> None:
    async with client_of(make_app(None)) as client:
        assert (await client.post("/v1/things/a", json={"name": "b"})).status_code == 200


@pytest.mark.promise("browsers")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://control-plane"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://control-plane"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://control-plane"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://control-plane.evil.example"}, 403),
        ({"Origin": "http://control-plane:8001"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_where_authentication_is_off_pages_of_other_origins_are_refused(
    headers: dict[str, str], status: int
) -> None:
    async with client_of(make_app(None)) as client:
        answer = await client.post("/v1/things/a", json={"name": "b"}, headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["code"] == "origin_not_allowed"


async def test_an_app_that_was_given_no_tokens_lets_nobody_in(app: FastAPI) -> None:
    del app.state.api_tokens
    async with client_of(app, token=TOKEN) as client:
        assert (await client.post("/v1/things/a", json={"name": "b"})).status_code == 500


def test_swaggers_authorize_knows_the_scheme_and_which_routes_need_it(app: FastAPI) -> None:
    document = app.openapi()
    scheme = document["components"]["securitySchemes"]["API token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert "API_TOKEN" in scheme["description"]
    assert document["paths"]["/v1/things/{name}"]["post"]["security"] == [{"API token": []}]
    assert "security" not in document["paths"]["/health"]["get"]
