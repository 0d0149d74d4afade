"""A job's log: kept whole within a bound for the final answer, and streamed piece by piece before it.

Commands write to it; the outbox takes the pieces when the socket is free. However much a child prints,
memory stays within the two bounds below and a job sends at most four pieces a second.
"""

import asyncio
import codecs
from collections.abc import Callable

WHOLE_LOG_BYTES = 1024 * 1024
"""What the final answer carries at most, as UTF-8; the control plane keeps as much."""

PIECE_BYTES = 64 * 1024
"""What one progress message carries at most: enough for any screen, and small beside a 16 MiB frame."""

PIECE_INTERVAL_SECONDS = 0.25
"""Four progress messages a second and job."""

_NOTE_BYTES = 80


class BoundedText:
    """Text that keeps its beginning and its end; when it outgrows its bound the middle is cut, with a note."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` bounds `text()` as UTF-8, its note included; it must exceed 80."""
        self._half = (limit_bytes - _NOTE_BYTES) // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._cut_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._head)

    def append(self, text: str) -> None:
        """Add to the end. Costs time in proportion to `text`, never to what is already there."""
        data = text.encode("utf-8", "replace")
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._half:
            self._trim()

    def text(self) -> str:
        """Return what is kept."""
        self._trim()
        if not self._cut_bytes:
            return (self._head + self._tail).decode()
        # A cut may fall inside a character; its other bytes go too.
        head = self._head.decode("utf-8", "ignore")
        tail = self._tail.decode("utf-8", "ignore")
        return f"{head}\n… [at least {self._cut_bytes} bytes are left out here] …\n{tail}"

    def _trim(self) -> None:
        excess = len(self._tail) - self._half
        if excess > 0:
            del self._tail[:excess]
            self._cut_bytes += excess


class JobLog:
    """One job's log. Lives on the event loop; `publish` is called when a piece waits to be taken."""

    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish
        self._whole = BoundedText(WHOLE_LOG_BYTES)
        self._piece = BoundedText(PIECE_BYTES)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._loop = asyncio.get_running_loop()
        # The acknowledgement was sent just now, and counts.
        self._last_taken_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def write(self, data: bytes) -> None:
        """Add a child's output; what is not UTF-8 becomes U+FFFD."""
        self._add(self._decoder.decode(data))

    def note(self, line: str) -> None:
        """Add a line of the agent's own, such as what it waits for."""
        self._add(f"{line}\n")

    def take(self) -> str:
        """Return what has been added since the last call, at most PIECE_BYTES; may be empty."""
        piece, self._piece = self._piece.text(), BoundedText(PIECE_BYTES)
        self._last_taken_at = self._loop.time()
        self._timer = None
        return piece

    def close(self) -> str:
        """Return the whole log, at most WHOLE_LOG_BYTES; nothing is published any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._whole.append(self._decoder.decode(b"", final=True))
        return self._whole.text()

    def _add(self, text: str) -> None:
        if not text:
            return
        self._whole.append(text)
        self._piece.append(text)
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_at(self._last_taken_at + PIECE_INTERVAL_SECONDS, self._publish)
