"""What agents answer: from a decoded response to a stored move. Called by the ws edge; never waits.

Agents' text is cleaned of control characters here, once, before anything stores or shows it.
"""

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import Any

from control_plane.core.logs import cut_middle
from control_plane.core.protocol import MAX_DATA_CHARACTERS, UNKNOWN_JOB_ID, Response, ResponseStatus
from control_plane.core.states import FailureReason, JobStatus, job_status_for
from control_plane.core.text import clean_text
from control_plane.fleet.health import is_check
from control_plane.fleet.session import AgentSession
from control_plane.operations.context import ControlPlane
from control_plane.operations.inbox import InboxFullError
from control_plane.store.moves import Answer

MAX_MESSAGES_PER_SECOND = 1_000
"""Of one agent. A good one sends two a command and at most four log messages a second for each that runs."""
MAX_ERROR_BYTES = 16 * 1024
MAX_DATA_DEPTH = 100
"""Of lists and objects in each other. Writers of JSON give up at some depth, this API's own at 255."""
_NAMED_JOB = re.compile(r'^\s*\{\s*"job_id"\s*:\s*"([^"\\]{1,200})"')


class FloodError(Exception):
    """An agent sends more than can be kept; its connection must end."""


def admit_message(session: AgentSession) -> None:
    """Count a message of an agent, whatever is in it. Raises FloodError when they are too many."""
    if not session.rate.allows(MAX_MESSAGES_PER_SECOND, asyncio.get_running_loop().time()):
        raise FloodError


def receive(plane: ControlPlane, session: AgentSession, response: Response) -> None:
    """Take one answer of an agent. Raises FloodError."""
    if is_check(response.job_id):
        plane.health.answered(session, response)
        return
    plane.dispatcher.acknowledged(session, response.job_id)
    if response.status.final:
        session.pulse.heard = True
    if response.job_id == UNKNOWN_JOB_ID:
        plane.metrics.answered("unknown")
        return
    if response.status is ResponseStatus.QUEUED:
        return
    try:
        plane.inboxes.put(session.agent_id, _answer(session.agent_id, response))
    except InboxFullError as full:
        raise FloodError from full


def lose_oversized(plane: ControlPlane, session: AgentSession, start: str) -> None:
    """Fail the job whose answer was too large to be taken, where there is no doubt which one it was.

    `start`: how the answer began, if that is known.
    """
    named = _NAMED_JOB.search(start)
    candidates = [named[1]] if named else plane.dispatcher.running_jobs(session)
    if len(candidates) != 1 or is_check(candidates[0]):
        return
    plane.inboxes.put(
        session.agent_id,
        Answer(
            candidates[0],
            session.agent_id,
            JobStatus.FAILED,
            datetime.now(UTC),
            reason=FailureReason.RESULT_LOST,
            error="The agent's answer was larger than 16 MiB and could not be taken; the command itself may have "
            "succeeded: ask for the project's status.",
        ),
    )


def _answer(agent_id: int, response: Response) -> Answer:
    status = job_status_for(response.status)
    failed = status is JobStatus.FAILED
    error = clean_text(response.error)
    if failed and not error:
        error = "The agent reported a failure without saying why; see the job's logs."
    return Answer(
        job_id=response.job_id,
        agent_id=agent_id,
        status=status,
        at=datetime.now(UTC),
        logs=clean_text(response.logs),
        whole_log=bool(response.whole_log),
        reason=FailureReason.AGENT_ERROR if failed else None,
        error=cut_middle(error, MAX_ERROR_BYTES) or None,
        data=_plain(response.data) if response.data is not None else None,
    )


def _plain(data: Any) -> Any:
    """Return `data` as JSON that every database takes, None if it is too large or too deep to be kept."""
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=True)
    except (ValueError, RecursionError):
        return None
    if len(text) > MAX_DATA_CHARACTERS or _is_deep(data):
        return None
    return _clean(data) if "\\u00" in text else data


def _is_deep(data: Any) -> bool:
    """Whether lists and objects are nested in `data` more than MAX_DATA_DEPTH deep."""
    level = [data]
    for _ in range(MAX_DATA_DEPTH):
        nested = [each for each in level if isinstance(each, dict | list)]
        level = [inner for each in nested for inner in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return False
    return any(isinstance(each, dict | list) for each in level)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(item) for key, item in value.items()}
    return value
