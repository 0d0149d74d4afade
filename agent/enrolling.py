"""`--enroll-only`: get a token of its own, keep it, and end. For installers, which must know at once whether it works.

`__main__` runs it instead of the agent. Exit codes: 0 the token is kept and good, 1 no answer in time or a disk that
does not take it, 2 refused; each but 0 with one line on stderr.
"""

import asyncio
import sys

from websockets.exceptions import InvalidStatus

from agent import refusals
from agent.connection import FAILURES, Connection
from agent.credentials import Credentials, NoTokenGivenError, Source, TokenNotKeptError
from agent.settings import Settings

GIVE_UP_SECONDS = 30
RETRY_SECONDS = 1

EXIT_NOT_REACHED = 1
EXIT_REFUSED = 2


async def enroll_only(connection: Connection, credentials: Credentials, settings: Settings) -> int:
    """Enrol, or find the kept token good; return the exit code."""
    had_token = credentials.source is Source.KEPT
    reason = connection.explain(TimeoutError())
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while True:
                try:
                    await connection.enroll()
                except FAILURES as error:
                    reason = connection.explain(error)
                    if _refused(error):
                        if refusals.is_status(error, 401) and credentials.turn_after_refusal():
                            had_token = False
                            continue
                        return _fail(reason, EXIT_REFUSED)
                else:
                    return _succeed(credentials, settings, had_token=had_token)
                await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        return _fail(f"{reason}; gave up after {GIVE_UP_SECONDS} s", EXIT_NOT_REACHED)
    except TokenNotKeptError as error:
        return _fail(str(error).rstrip("."), EXIT_NOT_REACHED)


def _refused(error: Exception) -> bool:
    if isinstance(error, InvalidStatus):
        return not refusals.may_pass(error.response.status_code)
    return isinstance(error, NoTokenGivenError)


def _succeed(credentials: Credentials, settings: Settings, *, had_token: bool) -> int:
    what = "Already enrolled" if had_token else "Enrolled"
    sys.stdout.write(
        f"{what} as {settings.hostname} at {settings.server_url}; the token is in {credentials.file.path}.\n"
    )
    return 0


def _fail(reason: str, code: int) -> int:
    sys.stderr.write(f"agent: {reason}.\n")
    return code
