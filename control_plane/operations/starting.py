"""What the events tell of the control plane itself: its starts and stops, and settings that changed between two starts.

`main` calls it. No secret and nothing that one could be guessed from is stored: each has a mark of 16 bits, by which
a change is noticed, and which one guess in 65,536 has too. The salt stays, lest further marks tell further bits.
"""

import hashlib
import secrets as random
from collections.abc import Mapping
from typing import Any

import structlog

from control_plane.core.access import DEFAULT_ORGANIZATION_ID
from control_plane.core.errors import ControlPlaneError
from control_plane.core.events import EventKind
from control_plane.store import agents, events
from control_plane.store.events import NewEvent, record_events
from control_plane.store.store import Store

MARKS = "_marks"
"""Kept in the details of a start, for the next one; details that begin so are shown to nobody."""
_SALT = "salt"
_SALT_BYTES = 16
_MARK_BYTES = 2
log = structlog.get_logger()


async def note_start(store: Store, version: str, settings: Mapping[str, Any], secrets: Mapping[str, bytes]) -> None:
    """Mark every agent offline, for no socket stands, and write how this start differs from the one before.

    `settings` by name, plain JSON; `secrets` by name, of which only marks are stored.
    """
    last_start = await store.read(events.find_last_event, EventKind.CONTROL_PLANE_STARTED)
    last_stop = await store.read(events.find_last_event, EventKind.CONTROL_PLANE_STOPPED)
    cut_off = await store.write(agents.forget_connections, None)
    before = last_start.details if last_start is not None else {"settings": {}, MARKS: {}}
    marks = _marks(secrets, before[MARKS].get(_SALT) or random.token_hex(_SALT_BYTES))
    if changes := _changes(before, settings, marks):
        message = f"Settings changed since the last start: {', '.join(changes)}."
        await _tell(store, NewEvent(EventKind.SETTINGS_CHANGED, DEFAULT_ORGANIZATION_ID, message, details=changes))
    message = f"The control plane {version} started"
    if last_start is not None and (last_stop is None or last_stop.id < last_start.id):
        message += "; its last run ended without a stop"
    details = {"version": version, "agents_cut_off": cut_off, "settings": dict(settings), MARKS: marks}
    await _tell(
        store, NewEvent(EventKind.CONTROL_PLANE_STARTED, DEFAULT_ORGANIZATION_ID, f"{message}.", details=details)
    )


async def note_stop(store: Store, version: str) -> None:
    """Write that the control plane ends because it was asked to."""
    message = f"The control plane {version} stopped."
    await _tell(store, NewEvent(EventKind.CONTROL_PLANE_STOPPED, DEFAULT_ORGANIZATION_ID, message))


async def _tell(store: Store, event: NewEvent) -> None:
    """Write an event. A disk that is full or a store that is away keeps nobody from starting or ending."""
    try:
        await store.write(record_events, event)
    except ControlPlaneError as error:
        log.warning("event_lost", kind=event.kind.value, error=error.detail)


def _changes(before: Mapping[str, Any], settings: Mapping[str, Any], marks: Mapping[str, str]) -> dict[str, Any]:
    """Return what changed, by name: values as `from` and `to`, of a secret nothing but that it changed."""
    old, old_marks = before["settings"], before[MARKS]
    changes: dict[str, Any] = {
        name: {"from": old[name], "to": value} for name, value in settings.items() if old.get(name, value) != value
    }
    changes |= {name: "changed" for name, mark in marks.items() if old_marks.get(name, mark) != mark}
    return dict(sorted(changes.items()))


def _marks(secrets: Mapping[str, bytes], salt: str) -> dict[str, str]:
    marks = {
        name: hashlib.blake2b(f"{salt} {name} ".encode() + secret, digest_size=_MARK_BYTES).hexdigest()
        for name, secret in secrets.items()
    }
    return {_SALT: salt, **marks}
