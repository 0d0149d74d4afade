"""Idempotency keys taken and forgotten: nobody looks a key up, and no unique index is asked."""

from typing import Any

from control_plane.operations import repeating
from control_plane.store import cancellations, deployments, jobs


def apply() -> None:
    """Find every key free, and keep none."""
    for module in (deployments, jobs, cancellations, repeating):
        _replace(module)


def _replace(module: Any) -> None:
    module.judge_requests = lambda *_: {}
    module.keep_answers = lambda *_: None
    module.share_a_key = lambda *_: False
