"""A real store on a temporary SQLite file, and short words for what tests of the store say over and over.

`sql` looks at the file through a connection of its own: what it sees is committed.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from uuid_utils import uuid7

from control_plane.core.compose import folded_name
from control_plane.core.protocol import CommandType
from control_plane.core.states import FailureReason, JobStatus
from control_plane.store import agents
from control_plane.store.answers import Outcome, Recorded, record_answers
from control_plane.store.database import StorageBrokenError
from control_plane.store.deployments import NewDeployment, accept_deployments
from control_plane.store.jobs import Claim, NewJob, add_jobs, claim_jobs
from control_plane.store.moves import Answer
from control_plane.store.store import Store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DEADLINE = NOW + timedelta(minutes=15)

TWO_RUNNING = """
SELECT agent_id, project_name FROM deployment WHERE status = 'running' GROUP BY 1, 2 HAVING count(*) > 1
"""
CURRENT_IS_NOT_WHAT_RUNS = """
SELECT p.project_name, p.agent_id FROM placement p WHERE p.current_deployment_id IS NOT
(SELECT d.id FROM deployment d WHERE d.agent_id = p.agent_id AND d.project_name = p.project_name
 AND d.status = 'running')
"""
PIECES_OF_WHAT_IS_OVER = "SELECT job_id FROM job_log JOIN job ON id = job_id WHERE status IN ('completed', 'failed')"
OVER_WITHOUT_AN_END = "SELECT id FROM job WHERE (status IN ('completed', 'failed')) != (finished_at IS NOT NULL)"
WAITS_FOR_NOTHING = """
SELECT d.id FROM deployment d JOIN job j ON j.deployment_id = d.id AND j.command_type = 'DEPLOY_COMPOSE'
WHERE (d.status = 'pending') != (j.status IN ('queued', 'in_progress'))
"""
BROKEN = [TWO_RUNNING, CURRENT_IS_NOT_WHAT_RUNS, PIECES_OF_WHAT_IS_OVER, OVER_WITHOUT_AN_END, WAITS_FOR_NOTHING]
"""Queries that find nothing in a database whose jobs, deployments and placements agree with each other."""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "control_plane.db"


@pytest.fixture
async def store(database: Path) -> AsyncIterator[Store]:
    opened = open_store(database)
    yield opened
    await opened.close()


def open_store(database: Path) -> Store:
    return Store(f"sqlite:///{database}", _broken, asyncio.get_running_loop())


def _broken(error: StorageBrokenError) -> None:
    raise AssertionError(f"The store thinks that the disk has failed: {error}")


def sql(database: Path, query: str, *parameters: object) -> list[Any]:
    """Return the rows, unpacked where they have one column."""
    connection = sqlite3.connect(database, timeout=5)
    try:
        rows = connection.execute(query, parameters).fetchall()
        connection.commit()
    finally:
        connection.close()
    return [row[0] if len(row) == 1 else row for row in rows]


def new_id() -> str:
    return str(uuid7())


def arrival(hostname: str = "alpha", *, connection: str = "c1", at: datetime = NOW) -> agents.Arrival:
    return agents.Arrival(1, hostname, "192.0.2.1", "1.0.0", "linux-amd64", "", "", connection, at)


async def add_agent(store: Store, hostname: str = "alpha", *, connection: str = "c1") -> int:
    return (await store.write(agents.arrive, arrival(hostname, connection=connection))).agent_id


def new_deployment(project: str = "web", agent_id: int = 1, **changes: Any) -> NewDeployment:
    new = NewDeployment(
        job_id=new_id(),
        organization_id=1,
        project_name=project,
        folded_name=folded_name(project),
        agent_id=agent_id,
        compose_sha256="5" * 64,
        compose_source=b"services: {}",
        timeout_seconds=900,
        deadline_at=DEADLINE,
        at=NOW,
        max_queued=1000,
    )
    return replace(new, **changes)


def new_job(kind: CommandType, project: str | None = "web", agent_id: int = 1, **changes: Any) -> NewJob:
    return replace(NewJob(new_id(), 1, agent_id, project, None, kind, 60, DEADLINE, NOW, None), **changes)


async def deploy(store: Store, project: str = "web", agent_id: int = 1, *, send: bool = True) -> tuple[str, int]:
    """Accept a deploy and, unless told otherwise, count a send of it; returns the ids of job and deployment."""
    new = new_deployment(project, agent_id)
    deployment_id = await store.write(accept_deployments, new)
    if send:
        await claim(store, new.job_id)
    return new.job_id, deployment_id


async def stop(store: Store, deployment_id: int, project: str = "web", agent_id: int = 1) -> str:
    """Store a stop and count a send of it; returns the job's id."""
    new = new_job(CommandType.STOP_COMPOSE, project, agent_id, deployment_id=deployment_id)
    await store.write(add_jobs, new)
    await claim(store, new.job_id)
    return new.job_id


async def claim(store: Store, job_id: str, attempt: int = 0) -> None:
    await store.write(claim_jobs, Claim(job_id, attempt, "", NOW, DEADLINE))


def completed(job_id: str, agent_id: int | None = 1, **changes: Any) -> Answer:
    return replace(Answer(job_id, agent_id, JobStatus.COMPLETED, NOW), **changes)


def failed(job_id: str, agent_id: int | None = 1, **changes: Any) -> Answer:
    reason = FailureReason.AGENT_ERROR
    return replace(Answer(job_id, agent_id, JobStatus.FAILED, NOW, reason=reason, error="exit 1"), **changes)


def progress(job_id: str, logs: str = "", agent_id: int | None = 1, **changes: Any) -> Answer:
    return replace(Answer(job_id, agent_id, JobStatus.IN_PROGRESS, NOW, logs=logs), **changes)


async def record(store: Store, *answers: Answer) -> list[Outcome]:
    """Apply answers one commit after another."""
    return [(await store.write(record_answers, answer)).outcome for answer in answers]


async def record_together(store: Store, *answers: Answer) -> Sequence[Outcome | Exception]:
    """Apply answers in one batch of one commit."""
    recorded = await store.write(_as_one_batch, answers)
    return [one.outcome if isinstance(one, Recorded) else one for one in recorded]


def _as_one_batch(db: Any, batches: Sequence[Sequence[Answer]]) -> list[Sequence[Recorded | Exception] | Exception]:
    return [record_answers(db, batch) for batch in batches]
