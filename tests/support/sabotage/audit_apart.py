"""A writer that writes the audit in a commit of its own, some time after that of the changes."""

import time
from dataclasses import replace
from typing import Any

from control_plane.store.audit import record_audit
from control_plane.store.writer import Writer, _Waiting

BETWEEN_SECONDS = 10.0
"""Time for a kill: a race that would be lost now and then is lost each time."""


def apply() -> None:
    """Split each commit in two."""
    commit_together = Writer._commit_together

    def commit_then_audit(self: Writer, batch: list[_Waiting]) -> list[Any]:
        outcomes = commit_together(self, [replace(one, audit=None) for one in batch])
        audited = [(one.audit, outcome) for one, outcome in zip(batch, outcomes, strict=True) if one.audit is not None]
        if audited:
            time.sleep(BETWEEN_SECONDS)
            with self._connection.begin():
                record_audit(self._connection, audited)
        return outcomes

    Writer._commit_together = commit_then_audit  # type: ignore[method-assign]
