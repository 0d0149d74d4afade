"""Keeping the database small: removes what is old, and gives the space back. The retention loop calls it.

It takes the writer for some hundredths of a second at a time and then leaves it alone for ten times as long, so
that users' changes hardly notice. What is not done when the time is up is done in the next run.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from sqlmodel import Session

from control_plane.store import idempotency, retention, space
from control_plane.store.retention import Page, Sweep, Swept
from control_plane.store.store import Store

RUN_SECONDS = 15 * 60
"""The longest run. A first one over years of history goes on in the next."""
RESTS = 9
"""The writer is left alone for so many times as long as it was held: a tenth of its time at most is taken."""

Listing = Callable[[Session, datetime, Any], Page]
Removal = Callable[[Connection, Sequence[Sweep]], list[Swept | Exception]]

# Jobs first: they refer to deployments. Compose files go with the last deployment that has them.
_BY_AGE: tuple[tuple[Listing, Removal], ...] = (
    (retention.list_old_jobs, retention.remove_jobs),
    (retention.list_old_deployments, retention.remove_deployments),
    (retention.list_old_events, retention.remove_events),
)


@dataclass
class _Run:
    """One run over everything that may be old."""

    store: Store
    ends_at: float
    removed: Counter[str]

    @property
    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() >= self.ends_at

    async def sweep(self, listing: Listing, removal: Removal, before: datetime) -> None:
        after = None
        while not self.is_over:
            page = await self.store.read(listing, before, after)
            await self._remove(removal, page.keys, before)
            after = page.next_after
            if after is None:
                return

    async def _remove(self, removal: Removal, keys: Sequence[Any], before: datetime) -> None:
        while keys and not self.is_over:
            swept = await self.store.write(removal, Sweep(keys, before))
            self.removed.update(swept.removed)
            keys = keys[swept.dealt_with :]
            await asyncio.sleep(RESTS * swept.held_seconds)

    async def give_space_back(self) -> None:
        spare = await self.store.read(space.count_spare_pages)
        while spare > 0 and not self.is_over:
            given = await self.store.write(space.give_pages_back, spare)
            spare -= given.pages
            self.removed["pages"] += given.pages
            await asyncio.sleep(RESTS * given.held_seconds)


async def remove_old(store: Store, *, retention_days: int, seconds: float = RUN_SECONDS) -> Counter[str]:
    """Remove what is over since `retention_days` (0 keeps it for ever), and records of keys after their day.

    Ends after `seconds`, done or not. Returns how many rows of what are gone, and `pages` given back to the file
    system. Raises what the store raises; what was removed until then is gone.
    """
    now = datetime.now(UTC)
    run = _Run(store, asyncio.get_running_loop().time() + seconds, Counter())
    await run.sweep(
        retention.list_old_idempotency_records, retention.remove_idempotency_records, now - idempotency.KEPT
    )
    if retention_days:
        for listing, removal in _BY_AGE:
            await run.sweep(listing, removal, now - timedelta(days=retention_days))
    await run.give_space_back()
    return +run.removed
