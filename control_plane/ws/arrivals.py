"""Uvicorn's HTTP protocol, except that the upgrade requests of a crowd of agents are taken in turns.

`serve` gives it to uvicorn. When a whole fleet dials at once, thousands of requests are there in the same turn of
the event loop, at a tenth of a millisecond each: taken as they come they held REST up for most of a second.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from control_plane.core import protocol
from control_plane.ws.inflow import turns_of

UPGRADE = b"GET " + protocol.PATH.encode()


class ArrivalsProtocol(HttpToolsProtocol):
    """Takes everything at once but what begins like an agent's handshake."""

    _kept = b""
    """What came of a handshake that waits for its turn."""

    def data_received(self, data: bytes) -> None:
        """Take a request now, or keep it for its turn."""
        if self._kept:
            self._kept += data
            self.transport.pause_reading()  # whoever goes on without an answer has nothing to say that is needed
        elif data.startswith(UPGRADE):
            self._kept = data
            turns_of("arrivals", self.loop, self.app_state).join(self._take_kept)
        else:
            super().data_received(data)

    def _take_kept(self) -> bool:
        kept, self._kept = self._kept, b""
        if not self.transport.is_closing():
            self.transport.resume_reading()
            super().data_received(kept)
        return False
