"""Errands of commands on the host: tokens for operators who have lost every one. The tokens loop calls it."""

import asyncio
from pathlib import Path

import structlog

from control_plane.core.errors import ControlPlaneError
from control_plane.operations.context import ControlPlane
from control_plane.store import errands

log = structlog.get_logger()


async def do_errands(plane: ControlPlane, directory: Path) -> None:
    """Carry out the requests that are left in the directory, and leave what became of each."""
    for key, errand in await asyncio.to_thread(errands.find_requests, directory):
        error: str | None = None
        if errand is None:
            error = "The control plane cannot read the request: is it of the same version?"
        else:
            try:
                token_id = await plane.store.write(errands.carry_out_errands, errand)
                log.warning("token_made_on_host", token_id=token_id, role=errand.role, name=errand.name)
            except ControlPlaneError as refusal:
                error = refusal.detail
        await plane.token_book.refresh()
        await asyncio.to_thread(errands.answer, directory, key, error)
