"""Inboxes that hand each answer to the store once, and forget it when that fails."""

import contextlib

from control_plane.core.errors import ControlPlaneError
from control_plane.operations.inbox import Inboxes
from control_plane.store.moves import Answer


def apply() -> None:
    """Have nothing be tried again."""

    async def store_once(self: Inboxes, answer: Answer) -> None:
        with contextlib.suppress(ControlPlaneError):
            await self._record(answer)

    Inboxes._store = store_once  # type: ignore[method-assign]
