"""What the database file says about the deploys, read beside the running server without going through it.

The end of a measurement and its verdict come from here: a deploy counts when its COMPLETED is stored.
The tables and columns read here are the same in the server and in the floor.
"""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.deploys import BenchmarkError

POLL_SECONDS = 0.005
OPEN_JOBS = "SELECT count(*) FROM job WHERE status IN ('queued', 'in_progress')"
VERDICTS = """
SELECT job.id, job.status, deployment.status
FROM job LEFT JOIN deployment ON deployment.id = job.deployment_id
"""
GOOD = {("completed", "running"), ("completed", "superseded")}


async def all_stored(database: Path, timeout_seconds: float) -> float:
    """Wait until no job is open; return the `time.perf_counter()` at which that was seen.

    Raises BenchmarkError after `timeout_seconds`.
    """
    deadline = time.perf_counter() + timeout_seconds
    with closing(_open(database)) as db:
        while True:
            still_open = db.execute(OPEN_JOBS).fetchone()[0]
            now = time.perf_counter()
            if not still_open:
                return now
            if now > deadline:
                raise BenchmarkError(f"{still_open} jobs were still open after {timeout_seconds:.0f} s")
            await asyncio.sleep(POLL_SECONDS)


def check(database: Path, job_ids: Sequence[str]) -> None:
    """Raise BenchmarkError unless each job is stored as completed and its deployment as running or superseded."""
    if len(set(job_ids)) != len(job_ids):
        raise BenchmarkError("two deploys were answered with the same job id")
    with closing(_open(database)) as db:
        verdicts = {job_id: (job, deployment) for job_id, job, deployment in db.execute(VERDICTS)}
    wrong = Counter(verdicts.get(job_id, ("not stored", None)) for job_id in job_ids)
    for verdict in GOOD:
        wrong.pop(verdict, None)
    if wrong:
        found = ", ".join(f"{count} x job {job}, deployment {deployment}" for (job, deployment), count in wrong.items())
        raise BenchmarkError(f"of {len(job_ids)} accepted deploys these did not end well: {found}")


def _open(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
