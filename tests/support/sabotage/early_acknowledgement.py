"""A writer that tells its callers what is in its open transaction, and commits that afterwards."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from control_plane.store.writer import Change, Writer, _Waiting

ANSWER_SECONDS = 0.05
"""Time for the answers to leave before the commit: a race that would be lost now and then is lost each time."""


def apply() -> None:
    """Settle each change of a batch as soon as its statements have run."""
    commit_together = Writer._commit_together

    def tell_then_commit(self: Writer, batch: list[_Waiting]) -> list[Any]:
        futures = {id(waiting.item): waiting.future for waiting in batch}
        audits = [waiting.audit and replace(waiting.audit) for waiting in batch]
        for waiting in batch:
            if waiting.audit is not None:
                waiting.audit.written = True  # as callers are told: they would else wait for it

        def telling(change: Change[Any, Any]) -> Change[Any, Any]:
            def change_and_tell(db: Connection, items: Sequence[Any]) -> Sequence[Any]:
                results = change(db, items)
                for item, result in zip(items, results, strict=True):
                    if not isinstance(result, Exception):
                        self._loop.call_soon_threadsafe(futures[id(item)].set_result, result)
                time.sleep(ANSWER_SECONDS)
                return results

            return change_and_tell

        tellers = {waiting.change: telling(waiting.change) for waiting in batch}
        told = zip(batch, audits, strict=True)
        return commit_together(self, [replace(one, change=tellers[one.change], audit=audit) for one, audit in told])

    Writer._commit_together = tell_then_commit  # type: ignore[method-assign]
