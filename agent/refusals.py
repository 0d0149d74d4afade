"""What a control plane's HTTP answer to a handshake means for the operator: one sentence, and whether it may pass.

`connection` and `enrolling` ask here. The sentence holds what the control plane says about it, cleaned and bounded;
it never holds a token, whatever the control plane says.
"""

import json

from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from agent.credentials import NEW_ENROLLMENT, Credentials, Source
from agent.settings import Settings

MAX_DETAIL_CHARACTERS = 300


def explain_refusal(response: Response, settings: Settings, credentials: Credentials) -> str:
    """Return one sentence, without its full stop, on why the control plane let nobody in and what to do."""
    status = response.status_code
    said = _detail(response, credentials.token)
    code = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status == 401:
        return _refused_token(code, credentials)
    if status == 403 and credentials.source is Source.ENROLLMENT:
        return (
            f'The control plane does not let this agent enrol as "{settings.hostname}" ({code}): free that hostname on '
            "the control plane, or give this agent a name of its own with --hostname (AGENT_HOSTNAME)"
        )
    if status == 403:
        return (
            f"The control plane refused this agent ({code}): check that its token, and its certificate if it needs "
            f'one, are for the hostname "{settings.hostname}"'
        )
    if status == 409:
        return (
            f'Another live agent is connected as "{settings.hostname}" ({code}): stop it, or give this one a '
            "name of its own with --hostname (AGENT_HOSTNAME)"
        )
    return f"{settings.server_url} answered {code}: check the address, and that its service is up"


def _refused_token(code: str, credentials: Credentials) -> str:
    if credentials.source is Source.GIVEN:
        return (
            f"The control plane refused this agent's token ({code}): set AGENT_SECRET_TOKEN to the control plane's "
            "own value and restart the agent"
        )
    if credentials.source is Source.ENROLLMENT:
        return f"The control plane refused the enrolment token ({code}): {NEW_ENROLLMENT}"
    return f"The control plane refused the token in {credentials.file.path} ({code}): {NEW_ENROLLMENT}"


def is_status(error: Exception | None, *statuses: int) -> bool:
    """Whether `error` is one of these HTTP answers."""
    return isinstance(error, InvalidStatus) and error.response.status_code in statuses


def may_pass(status: int) -> bool:
    """Whether this answer may be another one in a moment, without anybody doing anything."""
    return status == 429 or status >= 500


def _detail(response: Response, token: str) -> str:
    """Return the problem document's `detail` as one short line of printable characters; empty if there is none."""
    try:
        document = json.loads(response.body or b"")
    except (ValueError, RecursionError):
        return ""
    detail = document.get("detail") if isinstance(document, dict) else None
    if not isinstance(detail, str):
        return ""
    line = "".join(letter if letter.isprintable() else " " for letter in detail.replace(token, "…"))
    line = " ".join(line.split())
    return line[:MAX_DETAIL_CHARACTERS].rstrip(".")
