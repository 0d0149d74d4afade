"""What is known of a frame that was refused for its length: its first bytes, which name the job it answers for.

The protocol below throws the whole frame away as soon as it knows the length; `ws.socket` uses this one, which
keeps a little of it.
"""

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

START_BYTES = 512
"""Agents write the job's id first."""
ENOUGH_BYTES = 256
"""Holds any job's id, unless somebody hides it."""
_MASK_BYTES = 4


class KeepingProtocol(ServerProtocol):
    """A server's side of one connection, as ever but for the start of a refused frame."""

    _refused = b""

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Keep the start of what is about to be thrown away: mask and payload of a frame whose header was read."""
        if code == CloseCode.MESSAGE_TOO_BIG:
            self._refused = bytes(self.reader.buffer[:START_BYTES])
        super().fail(code, reason)

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes of the peer."""
        if isinstance(self.parser_exc, PayloadTooBig):
            self._refused = (self._refused + data[:START_BYTES])[:START_BYTES]
        super().receive_data(data)

    def refused_start(self) -> bytes:
        """Return how the payload of the refused frame begins, as far as it has come."""
        return bytes(apply_mask(self._refused[_MASK_BYTES:], self._refused[:_MASK_BYTES].ljust(_MASK_BYTES)))
