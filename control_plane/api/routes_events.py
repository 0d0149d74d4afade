"""Events: what happened, for operators."""

import difflib
from typing import Annotated

from fastapi import Query
from pydantic import BeforeValidator

from control_plane.api.auth import Caller, protected_router
from control_plane.api.parameters import (
    AgentFilter,
    Cursor,
    Limit,
    Period,
    Plane,
    ProjectFilter,
    number_from,
    one_page,
)
from control_plane.api.schemas import EventOut, EventPage
from control_plane.core.events import EventKind
from control_plane.store import events
from control_plane.store.events import WantedEvents

router = protected_router(tags=["Events"])


def _kind(name: str) -> str:
    kinds = [kind.value for kind in EventKind]
    if name in kinds:
        return name
    close = difflib.get_close_matches(name, kinds, n=1)
    hint = f"did you mean {close[0]}?" if close else f"such as {EventKind.DEPLOY_FAILED.value}; API.md lists them"
    raise ValueError(f"must be a kind of event, {hint}")


Kind = Annotated[EventKind | None, BeforeValidator(_kind), Query(description="Only of this kind.")]


@router.get("/events", operation_id="list_events", summary="List what happened")
async def list_events(
    plane: Plane,
    caller: Caller,
    limit: Limit = 100,
    cursor: Cursor = None,
    kind: Kind = None,
    agent_id: AgentFilter = None,
    project: ProjectFilter = None,
    period: Period = (None, None),
) -> EventPage:
    """List events, newest first: agents that came and went, deploys and stops, starts of the control plane."""
    wanted = WantedEvents(
        caller.reach,
        limit=limit + 1,
        kind=kind,
        agent_id=agent_id,
        project_name=project,
        since=period[0],
        until=period[1],
        before_id=number_from(cursor),
    )
    page, next_cursor = one_page(await plane.store.read(events.list_events, wanted), limit)
    return EventPage(events=[EventOut.model_validate(row) for row in page], next_cursor=next_cursor)
