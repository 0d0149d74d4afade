"""What becomes of a job when its agent connects again: every combination of what is known, spelt out.

Never sent again while an earlier send may still run; never given up while its agent may still answer.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import Any, cast

import pytest

from control_plane.core.protocol import Capability, CommandType
from control_plane.core.states import JobStatus
from control_plane.fleet.reconcile import MAX_SENDS, Verdict, judge
from control_plane.fleet.session import AgentSession, Identity
from control_plane.store.jobs import AgentJob

NEVER, SENT, ACKNOWLEDGED = "never sent", "sent", "acknowledged"
NAMELESS, SAME, OTHER, NOW_NAMED, NOW_NAMELESS = "nameless", "same", "other", "now named", "now nameless"
INSTANCES = {NAMELESS: ("", ""), SAME: ("i", "i"), OTHER: ("i", "j"), NOW_NAMED: ("", "j"), NOW_NAMELESS: ("i", "")}
"""The process a job was sent to and the one that connects; Go agents name neither."""

AWAIT, SEND, AGAIN, LOST = Verdict.AWAIT, Verdict.SEND, Verdict.SEND_AGAIN, Verdict.LOST
TABLE = {
    # progress, process: (Go agent; agent that knows its jobs, sends left; the same, none left)
    (SENT, NAMELESS): (AWAIT, AGAIN, AWAIT),
    (SENT, SAME): (AWAIT, AGAIN, AWAIT),
    (SENT, NOW_NAMED): (AWAIT, AGAIN, AWAIT),
    (SENT, NOW_NAMELESS): (AWAIT, AGAIN, AWAIT),
    (SENT, OTHER): (LOST, AGAIN, LOST),
    (ACKNOWLEDGED, NAMELESS): (AWAIT, AWAIT, AWAIT),
    (ACKNOWLEDGED, SAME): (AWAIT, AGAIN, AWAIT),
    (ACKNOWLEDGED, NOW_NAMED): (AWAIT, AWAIT, AWAIT),
    (ACKNOWLEDGED, NOW_NAMELESS): (AWAIT, AWAIT, AWAIT),
    (ACKNOWLEDGED, OTHER): (LOST, AGAIN, LOST),
}


def cases() -> Iterator[Any]:
    for progress, process, resend, attempt in product(
        (NEVER, SENT, ACKNOWLEDGED), INSTANCES, (False, True), range(MAX_SENDS + 1)
    ):
        if progress != NEVER and attempt == 0:
            continue
        column = 0 if not resend else 1 if attempt < MAX_SENDS else 2
        expected = SEND if progress == NEVER else TABLE[progress, process][column]
        what = "knows its jobs" if resend else "plain"
        yield pytest.param(progress, process, resend, attempt, expected, id=f"{progress}-{process}-{what}-{attempt}")


@pytest.mark.parametrize(("progress", "process", "resend", "attempt", "expected"), list(cases()))
def test_an_active_job_of_an_agent_that_connects(
    progress: str, process: str, *, resend: bool, attempt: int, expected: Verdict
) -> None:
    sent_to, connects = INSTANCES[process]
    job = AgentJob(
        id="j",
        kind=CommandType.DEPLOY_COMPOSE,
        project_name="web",
        status=JobStatus.IN_PROGRESS if progress == ACKNOWLEDGED else JobStatus.QUEUED,
        attempt=attempt,
        timeout_seconds=900,
        deadline_at=datetime.now(UTC),
        sent=progress != NEVER,
        sent_instance="" if progress == NEVER else sent_to,
    )
    capabilities = frozenset({Capability.RESEND.value} if resend else ())
    identity = Identity(1, "alpha", "192.0.2.1", "1.0.0", "linux-amd64", connects, capabilities)
    # Judging looks at who the agent is and never at its socket.
    assert judge(job, AgentSession(1, "c", identity, cast("Any", None))) is expected
