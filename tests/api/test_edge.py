"""Every answer carries a request id and the headers that keep browsers from running or keeping it."""

from typing import Any

from structlog.contextvars import get_contextvars

from control_plane.api.problems import http_problem
from tests.support.http import client_of
from tests.support.problem_app import make_app


async def test_a_request_id_is_taken_if_it_is_one_and_made_otherwise() -> None:
    app = make_app()
    seen: list[dict[str, Any]] = []

    @app.get("/seen")
    async def see() -> None:
        seen.append(get_contextvars())

    async with client_of(app) as client:
        given_id = await client.get("/seen", headers={"X-Request-ID": "ci-run_42.a"})
        made = [
            (await client.get("/nowhere", headers=headers)).headers["x-request-id"]
            for headers in ({}, {}, {"X-Request-ID": "a b"}, {"X-Request-ID": "x" * 65}, {"X-Request-ID": ""})
        ]
    assert given_id.headers["x-request-id"] == "ci-run_42.a"
    assert seen == [{"request_id": "ci-run_42.a"}]
    assert get_contextvars() == {}
    assert len(set(made)) == 5
    assert all(request_id.isalnum() and len(request_id) == 24 for request_id in made)


async def test_answers_are_not_kept_framed_or_sniffed_unless_the_route_says_otherwise() -> None:
    app = make_app()

    @app.get("/page")
    async def page() -> Any:
        return http_problem(400, "x", "X.", headers={"Cache-Control": "max-age=5"})

    async with client_of(app) as client:
        usual, own = await client.get("/agents"), await client.get("/page")
    assert usual.headers["cache-control"] == "no-store"
    assert usual.headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in usual.headers["content-security-policy"]
    assert own.headers.get_list("cache-control") == ["max-age=5"]
