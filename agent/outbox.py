"""What waits for the socket: one queue, from which one task writes.

The runner puts answers in, the connection takes them out. Everything stays here while the connection is
down; a final answer leaves only when it is known to be delivered, and goes first on the next connection.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from agent.journal import Journal

MAX_PLAIN_ANSWERS = 1000
"""Acknowledgements and rejections kept while the socket is slow; beyond it the oldest go."""


@dataclass(frozen=True)
class Outgoing:
    """One frame's text; `final_of` is the job that it ends, if it ends one."""

    text: str
    final_of: str | None = None


class Outbox:
    """The queue. Lives on the event loop; holds one entry a job and kind, so it is bounded by running jobs."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._queue: OrderedDict[tuple[str, str], Callable[[], Outgoing | None]] = OrderedDict()
        self._undelivered: dict[str, None] = dict.fromkeys(journal.unsent_job_ids())
        self._plain_answers = 0
        self._filled = asyncio.Event()
        self._settled = asyncio.Event()
        self._note_change()

    def answer(self, text: str) -> None:
        """Queue an acknowledgement or a rejection."""
        self._plain_answers += 1
        self._queue["plain", str(self._plain_answers)] = lambda: Outgoing(text)
        plain = [key for key in self._queue if key[0] == "plain"]
        for key in plain[:-MAX_PLAIN_ANSWERS]:
            del self._queue[key]
        self._note_change()

    def progress(self, job_id: str, take: Callable[[], str | None]) -> None:
        """Queue a progress message, whose text is asked for when the socket is free; None sends nothing."""

        def produce() -> Outgoing | None:
            text = take()
            return None if text is None else Outgoing(text)

        self._queue["progress", job_id] = produce
        self._note_change()

    def final(self, job_id: str) -> None:
        """Queue the job's final answer, which the journal has; what it was still streaming is dropped."""
        self._queue.pop(("progress", job_id), None)
        self._undelivered[job_id] = None
        self._queue["final", job_id] = partial(self._read_final, job_id)
        self._note_change()

    def start_connection(self) -> None:
        """Put every final answer that is not known to be delivered in front, oldest first."""
        for job_id in reversed(self._undelivered):
            self._queue["final", job_id] = partial(self._read_final, job_id)
            self._queue.move_to_end(("final", job_id), last=False)
        self._note_change()

    async def next(self) -> Outgoing:
        """Wait for the next frame and take it out."""
        while True:
            await self._filled.wait()
            _, produce = self._queue.popitem(last=False)
            self._note_change()
            outgoing = produce()
            if outgoing is not None:
                return outgoing

    def put_back(self, outgoing: Outgoing) -> None:
        """Return a frame that the socket did not take to the front; final answers come back by themselves."""
        if outgoing.final_of is None:
            self._plain_answers += 1
            key = ("plain", str(self._plain_answers))
            self._queue[key] = lambda: outgoing
            self._queue.move_to_end(key, last=False)
            self._note_change()

    def delivered(self, job_id: str) -> None:
        """Note that the control plane has the job's final answer."""
        self._undelivered.pop(job_id, None)
        self._journal.mark_delivered(job_id)
        self._note_change()

    async def settled(self) -> None:
        """Wait until nothing is queued and every final answer is delivered."""
        await self._settled.wait()

    def _read_final(self, job_id: str) -> Outgoing | None:
        text = self._journal.read(job_id)
        if text is None:
            self._undelivered.pop(job_id, None)
            self._note_change()
            return None
        return Outgoing(text, final_of=job_id)

    def _note_change(self) -> None:
        _set_to(self._filled, bool(self._queue))
        _set_to(self._settled, not self._queue and not self._undelivered)


def _set_to(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
