"""The audit: what is noted of requests that no change was written for, and reading it. Admins do.

A change carries its own entry into its commit; the edges call `note` for what was refused before that. Invariant:
a caller is answered the same whether its entry could be written or not.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from control_plane.core.access import Actor
from control_plane.core.audit import REPEATED, AuditEntry
from control_plane.core.errors import ControlPlaneError, StoreUnavailableError
from control_plane.operations.context import ControlPlane
from control_plane.operations.tokens import require_whole_reach
from control_plane.store import audit
from control_plane.store.audit import WantedAudit
from control_plane.store.models_audit import Audit

EXPORT_PAGE = 1000
"""Rows of an export in memory at a time: under a megabyte."""

log = structlog.get_logger()


async def note(plane: ControlPlane, entry: AuditEntry, refusal: str | None) -> None:
    """Write the entry of a request that ended without its change: refused with this problem code, or None.

    A store that is full, away or overloaded loses it; a log line and a metric say so.
    """
    if entry.written:
        return
    if refusal is not None:
        entry.outcome, entry.job_id = refusal, None
    elif entry.outcome is None:
        entry.outcome = REPEATED
    try:
        if refusal == StoreUnavailableError.code:  # else its caller would wait for the store once more
            raise StoreUnavailableError("The store did not answer just now.")
        await plane.store.write(audit.note_entries, None, entry)
    except Exception as error:
        plane.metrics.audit_lost.inc()
        # All of the row that would have been, so that a log that is kept has it.
        log.warning(
            "audit_lost",
            why=error.code if isinstance(error, ControlPlaneError) else type(error).__name__,
            organization_id=entry.organization_id,
            token_id=entry.token_id,
            actor=entry.actor,
            address=entry.address,
            action=entry.action,
            object=entry.object,
            outcome=entry.outcome,
        )


async def list_audit(plane: ControlPlane, actor: Actor, wanted: WantedAudit) -> Sequence[Audit]:
    """Return a page of the audit of the actor's organisation, newest first. Raises ForbiddenError."""
    require_whole_reach(actor)
    return await plane.store.read(audit.list_audit, wanted)


async def export_audit(
    plane: ControlPlane, actor: Actor, since: datetime | None, until: datetime | None
) -> AsyncIterator[Sequence[Audit]]:
    """Return the audit of the actor's organisation in pages, oldest first; the first is read. Raises ForbiddenError."""
    require_whole_reach(actor)
    wanted = WantedAudit(actor.reach, EXPORT_PAGE, since=since, until=until)
    first = await plane.store.read(audit.export_audit, wanted, 0)
    return _pages(plane, replace(wanted, since=None), first)


async def _pages(plane: ControlPlane, wanted: WantedAudit, page: Sequence[Audit]) -> AsyncIterator[Sequence[Audit]]:
    while page:
        yield page
        page = await plane.store.read(audit.export_audit, wanted, page[-1].id) if len(page) == wanted.limit else ()
