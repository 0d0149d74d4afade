"""The protocol of every connection: uvicorn's for HTTP, with the bounds that the edges set and one of its own.

`serve` gives it to uvicorn. Its own bound is that on strangers, connections on which no valid token was seen so far;
`main` puts the table of them into the lifespan's state. Invariant: once a token was seen, nothing is counted any more.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from control_plane.api.auth import ACTOR
from control_plane.api.request_heads import HeadLimitProtocol
from control_plane.api.whole_answers import WholeAnswerProtocol
from control_plane.core.strangers import STRANGERS, Strangers
from control_plane.ws.arrivals import ArrivalsProtocol


class StrangerProtocol(HttpToolsProtocol):
    """Counts as a stranger, while it is the peer's turn to speak, until a request had a valid token."""

    _stranger_at = ""
    """The address that it counts for; empty when it does not."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin as a stranger, unless it is a proxy's."""
        super().connection_made(transport)
        if self.client is not None and STRANGERS in self.app_state and not self._strangers.is_trusted(self.client[0]):
            self._stranger_at = self.client[0]
            self._strangers.wait(self._stranger_at, self)

    def on_headers_complete(self) -> None:
        """Note that the peer has spoken."""
        if self._stranger_at:
            self._strangers.leave(self._stranger_at, self)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Note that it is the peer's turn again, unless it has shown a token."""
        super().on_response_complete()
        if self._stranger_at and self.cycle.response_complete and not self.transport.is_closing():
            if ACTOR in self.cycle.scope:
                self._stranger_at = ""
            else:
                self._strangers.wait(self._stranger_at, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        if self._stranger_at:
            self._strangers.leave(self._stranger_at, self)
        super().connection_lost(exc)

    def turn_away(self) -> bool:
        """End the connection at once, unless a handshake of it is here and waits for its turn."""
        if getattr(self, "_kept", b""):
            return False
        self.transport.abort()
        return True

    @property
    def _strangers(self) -> Strangers:
        return cast("Strangers", self.app_state[STRANGERS])


class HttpProtocol(StrangerProtocol, ArrivalsProtocol, HeadLimitProtocol, WholeAnswerProtocol):
    """Uvicorn's, with what either edge adds to it."""
