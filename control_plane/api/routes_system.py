"""What may be asked without a token: which service this is, whether it lives, whether it is ready."""

from fastapi import APIRouter, Request

from control_plane import __version__
from control_plane.api.parameters import Plane
from control_plane.api.problem_types import problem_responses
from control_plane.api.schemas import Health, Readiness, ServiceInfo
from control_plane.core.errors import UnavailableError

router = APIRouter(tags=["Service"])


class NotReadyError(UnavailableError):
    """It should not be given traffic now."""

    code = "not_ready"


@router.get("/", operation_id="get_service", summary="Say which service this is")
async def get_service() -> ServiceInfo:
    """Answer with name and version."""
    return ServiceInfo(service="InstaDeploy control plane", version=__version__, status="running")


@router.get("/health", operation_id="get_health", summary="Say that the process lives")
async def get_health(plane: Plane) -> Health:
    """Answer as long as the process can; for liveness probes."""
    return Health(
        status="healthy",
        connected_agents=plane.manager.connected_count,
        unresponsive_agents=plane.health.unresponsive_count,
    )


@router.get(
    "/ready",
    operation_id="get_readiness",
    summary="Say whether it should be given traffic",
    responses=problem_responses(NotReadyError),
)
async def get_readiness(request: Request, plane: Plane) -> Readiness:
    """Answer 503 while it shuts down or while one of its loops has not succeeded for too long."""
    if plane.draining:
        raise NotReadyError("The control plane is shutting down.")
    stale = request.app.state.supervisor.stale_loops()
    if stale:
        raise NotReadyError(f"These loops have not succeeded for a while: {', '.join(stale)}; see the server's log.")
    return Readiness(status="ready")
