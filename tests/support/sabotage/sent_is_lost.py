"""A control plane that takes every command for lost whose agent's connection has ended, as after a restart."""

from typing import Any

from control_plane.fleet import dispatcher, reconcile
from control_plane.fleet.reconcile import Verdict
from control_plane.fleet.session import AgentSession
from control_plane.store.jobs import AgentJob


def apply() -> None:
    """Await no answer on a later connection."""
    judging: Any = dispatcher
    judging.judge = _judge


def _judge(job: AgentJob, session: AgentSession) -> Verdict:
    verdict = reconcile.judge(job, session)
    return Verdict.LOST if verdict is Verdict.AWAIT else verdict
