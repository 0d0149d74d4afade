"""`GET /metrics`: what Prometheus scrapes, in its text form or as OpenMetrics, whichever the scraper asks for."""

import asyncio

from fastapi import Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from control_plane.api.auth import Caller, protected_router
from control_plane.api.parameters import Plane
from control_plane.api.problem_types import problem_responses
from control_plane.core.errors import ForbiddenError
from control_plane.operations.observing import observe, require_whole_service

router = protected_router(tags=["Service"])

_EXAMPLE = """\
# HELP instadeploy_agents_connected Agents whose socket is up.
# TYPE instadeploy_agents_connected gauge
instadeploy_agents_connected 3.0
"""
_TEXT = {"schema": {"type": "string"}, "example": _EXAMPLE}


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Tell Prometheus how it goes",
    response_class=Response,
    responses=problem_responses(ForbiddenError)
    | {200: {"content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}}},
)
async def get_metrics(request: Request, plane: Plane, caller: Caller) -> Response:
    """Return all metrics as they are now; docs/monitoring.md explains each."""
    require_whole_service(caller)
    await observe(plane)
    for age in request.app.state.supervisor.ages():
        plane.metrics.loop_ran(age.loop, age.seconds, age.max_seconds)
    accept = request.headers.get("accept", "")
    # In a thread: reading /proc takes long when thousands of sockets are open, and nobody must wait for it.
    text, media_type = await asyncio.to_thread(_render, plane, accept)
    return Response(text, headers={"Content-Type": media_type})


def _render(plane: Plane, accept: str) -> tuple[bytes, str]:
    try:
        encode, media_type = choose_encoder(accept)
    except TypeError:  # a version that is no number
        encode, media_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    return encode(plane.metrics.registry), media_type
