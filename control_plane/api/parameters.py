"""What routes share: the control plane they call, page limits and cursors, and `wait`."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Protocol, TypeVar

from fastapi import Depends, Path, Query, Request
from pydantic import BeforeValidator

from control_plane.core.access import MAX_LABELS, is_label_part
from control_plane.core.compose import check_project_name
from control_plane.core.errors import FieldProblem, InvalidInputError
from control_plane.operations.context import ControlPlane

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

MAX_PAGE = 1000
MAX_WAIT_SECONDS = 300
LARGEST_ID = 2**63 - 1


class Numbered(Protocol):
    """A row with an id that is its place in a list."""

    @property
    def id(self) -> int | str:
        """What a cursor holds."""
        ...


Row = TypeVar("Row", bound=Numbered)


def _moment(text: str) -> datetime:
    # In a query an unescaped + is a space.
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text.upper() else text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a time such as 2026-11-23T20:20:09Z; without a zone it is UTC") from None


Moment = Annotated[datetime, BeforeValidator(_moment)]


async def control_plane(request: Request) -> ControlPlane:
    """Return the control plane of the app that serves the request."""
    plane: ControlPlane = request.app.state.control_plane
    return plane


async def project_name(
    name: Annotated[str, Path(description="The project's name.", max_length=1000, examples=["hello"])],
) -> str:
    """Return the name in the path. Raises InvalidInputError."""
    return check_project_name(name)


async def period(
    since: Annotated[Moment | None, Query(description="Only from this moment on, as `2026-11-23T20:20:09Z`.")] = None,
    until: Annotated[Moment | None, Query(description="Only before this moment, as `2026-11-23T20:20:09Z`.")] = None,
) -> tuple[datetime | None, datetime | None]:
    """Return the first moment that is asked for, and the one past it. Raises InvalidInputError."""
    if since is not None and until is not None and since >= until:
        reason = "must be later than since"
        raise InvalidInputError(f"until: {reason}.", [FieldProblem("until", reason)])
    return since, until


Plane = Annotated[ControlPlane, Depends(control_plane)]
ProjectName = Annotated[str, Depends(project_name)]
AgentInPath = Annotated[int, Path(ge=1, le=LARGEST_ID, description="An agent's id.", examples=[1])]
DeploymentInPath = Annotated[int, Path(ge=1, le=LARGEST_ID, description="A deployment's id.", examples=[1])]
JobId = Annotated[str, Path(max_length=200, description="A job's id.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="The most rows to return.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")]
AgentFilter = Annotated[int | None, Query(ge=1, le=LARGEST_ID, description="Only of this agent.")]
ProjectFilter = Annotated[str | None, Query(max_length=1000, description="Only of this project.")]
LabelFilter = Annotated[
    tuple[str, ...],
    Query(description="Only agents with this label, as `key=value`; given more than once, with all.", max_length=50),
]
Period = Annotated[tuple[datetime | None, datetime | None], Depends(period)]
Wait = Annotated[
    float,
    Query(
        ge=0,
        le=MAX_WAIT_SECONDS,
        allow_inf_nan=False,
        description="Hold the answer until the job is over, for at most so many seconds.",
    ),
]


_LABEL = re.compile(r"([^=]+)=([^=]+)")


def labels_from(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the keys and values of `key=value` texts. Raises InvalidInputError."""
    found = [_LABEL.fullmatch(text) for text in given]
    if len(given) > MAX_LABELS or not all(
        match and is_label_part(match[1]) and is_label_part(match[2]) for match in found
    ):
        reason = "must be key=value, such as env=prod"
        raise InvalidInputError(f"label: {reason}.", [FieldProblem("label", reason)])
    return tuple((match[1], match[2]) for match in found if match)


def one_page(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], str | None]:
    """Return the page and the cursor of the next, None on the last, from `limit + 1` rows that were asked for."""
    page = rows[:limit]
    return page, str(page[-1].id) if len(rows) > limit else None


def number_from(cursor: str | None) -> int | None:
    """Return the id that a cursor of numbered rows holds. Raises InvalidInputError."""
    if cursor is None:
        return None
    if cursor.isascii() and cursor.isdigit() and len(cursor) < 20 and int(cursor) <= LARGEST_ID:
        return int(cursor)
    raise bad_cursor()


def job_id_from(cursor: str | None) -> str | None:
    """Return the job id that a cursor of jobs holds. Raises InvalidInputError."""
    if cursor is None or _JOB_ID.fullmatch(cursor):
        return cursor
    raise bad_cursor()


def project_name_from(cursor: str | None) -> str | None:
    """Return the project name that a cursor of projects holds. Raises InvalidInputError."""
    try:
        return None if cursor is None else check_project_name(cursor)
    except InvalidInputError:
        raise bad_cursor() from None


def bad_cursor() -> InvalidInputError:
    """Return the error for a cursor that no page gave."""
    reason = "must be the next_cursor of an earlier page"
    return InvalidInputError(
        f"cursor: {reason}; leave it out to start at the first page.", [FieldProblem("cursor", reason)]
    )
