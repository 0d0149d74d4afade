"""Which token the agent presents, and how it comes by one of its own.

`connection` asks here before each attempt and hands the answer's headers back. A token that the control plane gives
is on the disk before this says that it is there: it is told only once, and one that is not kept is lost.
"""

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum, auto

from agent.settings import Settings, SettingsError, is_token
from agent.token_file import TokenFile

NEW_ENROLLMENT = "make a new enrolment token with POST /agents/enroll and start the agent with --enroll"

log = logging.getLogger(__name__)


class Source(Enum):
    """Where the token comes from that the agent presents."""

    GIVEN = auto()
    """--token: it stays as it is, whatever the control plane says."""
    KEPT = auto()
    """The token file: this agent's own."""
    ENROLLMENT = auto()
    """--enroll: good for nothing but to get one of its own."""


class NoTokenGivenError(Exception):
    """The control plane took the enrolment token and gave none in return; the text is one sentence."""


class TokenNotKeptError(Exception):
    """The token that the control plane gave cannot be written, and so is lost; the text is one sentence."""


class Credentials:
    """The tokens of one agent at one control plane."""

    def __init__(self, settings: Settings, file: TokenFile) -> None:
        """Read the token file, unless a token is given. Raises SettingsError if there is no token at all."""
        self.file = file
        self._given = settings.token
        self._enrollment = settings.enrollment_token
        self._kept = None if self._given else file.read()
        if self._given:
            self.source = Source.GIVEN
        elif self._kept:
            self.source = Source.KEPT
            if self._enrollment:
                log.info(
                    "A token for this control plane is in %s: --enroll is not used unless it is refused.", file.path
                )
        elif self._enrollment:
            self.source = Source.ENROLLMENT
        else:
            raise SettingsError(
                "No token is given and none is kept: enrol with --enroll (AGENT_ENROLLMENT_TOKEN), a token that "
                "POST /agents/enroll makes, or set AGENT_SECRET_TOKEN (--token) to one that the control plane knows."
            )

    @property
    def token(self) -> str:
        """What to present now."""
        return {Source.GIVEN: self._given, Source.KEPT: self._kept or "", Source.ENROLLMENT: self._enrollment}[
            self.source
        ]

    async def keep(self, given: Sequence[str]) -> None:
        """Take the X-Agent-Token headers of an answer that let the agent in; when enrolling, write the one token.

        Raises NoTokenGivenError, TokenNotKeptError.
        """
        if self.source is not Source.ENROLLMENT:
            return
        if len(given) != 1 or not is_token(given[0]):
            raise NoTokenGivenError(
                "The control plane let this agent in and gave it no token of its own: it does not enrol agents, or "
                "--enroll (AGENT_ENROLLMENT_TOKEN) holds another kind of token. Use --token for that, or "
                f"{NEW_ENROLLMENT}"
            )
        try:
            await asyncio.to_thread(self.file.write, given[0])
        except OSError as error:
            raise TokenNotKeptError(
                f"This agent's new token cannot be written to {self.file.path} ({error.strerror}) and is lost: put "
                "that right and start the agent again; the same enrolment token can be used again."
            ) from None
        self._kept, self.source = given[0], Source.KEPT
        log.info("Enrolled; this agent's own token is kept in %s.", self.file.path)

    def turn_after_refusal(self) -> bool:
        """After HTTP 401, turn to the other token that is worth trying; True if it has not been tried since.

        The kept token's turn comes again after the enrolment token's, for either may be mended on the server.
        """
        if self.source is Source.KEPT and self._enrollment:
            self.source = Source.ENROLLMENT
            return True
        if self.source is Source.ENROLLMENT and self._kept:
            self.source = Source.KEPT
        return False
