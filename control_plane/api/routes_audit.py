"""The audit: who did what, page by page and as a file that can be verified elsewhere."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import Query, Response
from starlette.responses import StreamingResponse

from control_plane.api.auth import Caller, needs, protected_router
from control_plane.api.parameters import LARGEST_ID, Cursor, Limit, Period, Plane, number_from, one_page
from control_plane.api.problem_types import problem_responses
from control_plane.api.schemas_audit import AuditOut, AuditPage
from control_plane.core.access import Role
from control_plane.core.audit import HASHED
from control_plane.core.errors import ForbiddenError
from control_plane.operations import auditing
from control_plane.store.audit import WantedAudit, moment_text
from control_plane.store.models_audit import Audit

router = protected_router(tags=["Audit"])


class JsonLinesResponse(Response):
    """A JSON object on each line."""

    media_type = "application/x-ndjson"


TokenFilter = Annotated[int | None, Query(ge=1, le=LARGEST_ID, description="Only of this token, by its id.")]
Name = Annotated[str | None, Query(min_length=1, max_length=100, pattern="^[a-z_]+$")]


@router.get(
    "/audit",
    operation_id="list_audit",
    summary="List who did what",
    openapi_extra=needs(Role.ADMIN),
    responses=problem_responses(ForbiddenError),
)
async def get_audit(
    plane: Plane,
    caller: Caller,
    limit: Limit = 100,
    cursor: Cursor = None,
    token_id: TokenFilter = None,
    action: Annotated[Name, Query(description="Only this, such as `deploy` or `revoke_token`.")] = None,
    outcome: Annotated[Name, Query(description="Only what ended so, such as `done` or `not_allowed`.")] = None,
    period: Period = (None, None),
) -> AuditPage:
    """List what the organisation's tokens changed, or were refused to change, newest first."""
    wanted = WantedAudit(
        caller.reach,
        limit=limit + 1,
        outcome=outcome,
        token_id=token_id,
        action=action,
        since=period[0],
        until=period[1],
        before_id=number_from(cursor),
    )
    page, next_cursor = one_page(await auditing.list_audit(plane, caller, wanted), limit)
    return AuditPage(entries=[AuditOut.model_validate(row) for row in page], next_cursor=next_cursor)


@router.get(
    "/audit/export",
    operation_id="export_audit",
    summary="Export who did what, as JSON lines",
    response_class=JsonLinesResponse,
    openapi_extra=needs(Role.ADMIN),
    responses={
        200: {"content": {JsonLinesResponse.media_type: {"schema": {"type": "string"}}}},
        **problem_responses(ForbiddenError),
    },
)
async def get_audit_export(plane: Plane, caller: Caller, period: Period = (None, None)) -> StreamingResponse:
    """Return all of the organisation's entries, oldest first, a JSON object a line, with the hashes that chain them.

    An answer that breaks off before its end is not whole: begin again.
    """
    pages = await auditing.export_audit(plane, caller, *period)
    return StreamingResponse(_lines(pages), media_type=JsonLinesResponse.media_type)


async def _lines(pages: AsyncIterator[Sequence[Audit]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield "".join(_line(row) for row in page).encode()


def _line(row: Audit) -> str:
    """Return a row as it is hashed, and its hash."""
    values = {name: getattr(row, name) for name in HASHED}
    values["at"] = moment_text(row.at)
    return json.dumps({**values, "hash": row.hash}, ensure_ascii=False, separators=(",", ":")) + "\n"
