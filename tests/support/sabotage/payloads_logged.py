"""What a developer in a hurry would add: a debug line with what is deployed, and one with what an agent said."""

from typing import Any

import structlog

from control_plane.checking.processes import ProcessChecker
from control_plane.core.protocol import decode_response
from control_plane.ws import endpoint


def apply() -> None:
    """Log each Compose file and each message."""
    log = structlog.get_logger("control_plane.hurry")

    check = ProcessChecker.check

    async def check_and_log(checker: ProcessChecker, source: bytes, project_name: str) -> Any:
        log.debug("deploying", file=source.decode("utf-8", "replace"))
        return await check(checker, source, project_name)

    def decode_and_log(text: str) -> Any:
        log.debug("heard", text=text)
        return decode_response(text)

    ProcessChecker.check = check_and_log  # type: ignore[assignment, method-assign]
    endpoint.decode_response = decode_and_log  # type: ignore[attr-defined]
