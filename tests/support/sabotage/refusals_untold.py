"""Nobody is told of agents that were refused for their hostname."""

from control_plane.fleet.refusals import RefusedHostnames


def apply() -> None:
    """Write no events of refusals."""

    async def nothing(*_arguments: object) -> None: ...

    RefusedHostnames.note = nothing  # type: ignore[assignment, method-assign]
