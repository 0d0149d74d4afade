"""Changes for tests of the writer that watch over what it does with them."""

import asyncio
import threading
from collections.abc import Sequence

from sqlalchemy import Connection, text

from control_plane.store.writer import Writer


class Batches:
    """A change that stores notes, and remembers how many it was given at once. Those in `bad` fail."""

    def __init__(self, *bad: str) -> None:
        self.sizes: list[int] = []
        self.bad = bad
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, db: Connection, items: Sequence[str]) -> list[str | Exception]:
        self.entered.set()
        assert self.gate.wait(30)
        self.sizes.append(len(items))
        for item in items:
            if item in self.bad:
                raise ValueError(item)
            db.execute(text("INSERT INTO note (item) VALUES (:item)"), {"item": item})
        return [item.upper() for item in items]


async def hold(writer: Writer, change: Batches) -> asyncio.Task[str]:
    """Start a write that keeps the writer busy until `change.gate` is set."""
    change.gate.clear()
    change.entered.clear()
    task = asyncio.create_task(writer.write(change, "first"))
    await asyncio.to_thread(change.entered.wait, 30)
    return task


async def hold_behind(writer: Writer, held: Batches, following: Batches) -> asyncio.Task[str]:
    """Let a batch that `hold` keeps be committed; return a write behind it that waits for `following.gate`."""
    following.gate.clear()
    task = asyncio.create_task(writer.write(following, "second"))
    await asyncio.sleep(0)
    held.gate.set()
    await asyncio.to_thread(following.entered.wait, 30)
    return task
