"""A deploy that must be refused, for the tests of POST /deploy."""

import base64
from typing import Any

from control_plane.api.problems import Problem
from tests.support.app import Site
from tests.support.problem_app import checked


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def refused(site: Site, status: int, code: str, body: Any, **params: Any) -> Problem:
    """Send a deploy that must be refused, see that nothing was stored, and return the problem."""
    before = await site.stored()
    response = await site.client.post("/deploy", json=body, params=params)
    problem = checked(response, status, code)
    assert await site.stored() == before
    return problem
