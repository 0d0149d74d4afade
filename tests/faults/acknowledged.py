"""What callers were told, and whether the database has it: the check that every fault of the storage must pass.

`Callers` deploy one after another, several at a time, and note each acknowledgement; `check_kept` compares.
"""

import asyncio
import contextlib
import itertools
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from control_plane.store.chain import verify_chain
from tests.support.server import ServerProcess


@dataclass(frozen=True)
class Deploy:
    """A deploy that was answered 2xx."""

    job_id: str
    deployment_id: int
    project: str
    source: str
    key: str
    """The caller's Idempotency-Key; every other one gave none, an empty one here."""


@dataclass
class Told:
    """What callers were told, over all servers of a test."""

    deploys: list[Deploy] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=itertools.count)


class Callers:
    """`async with Callers(server, told):` some callers at work, until their server is gone or the block ends."""

    def __init__(
        self, server: ServerProcess, told: Told, *, count: int = 8, padding: int = 0, **fields: object
    ) -> None:
        """`padding`: characters more in each file. `fields`: those of the request besides project and file."""
        self._server = server
        self._padding = "#" * padding
        self._fields = fields
        self._told = told
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = asyncio.Event()
        self._ending = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._count)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome

    async def told(self, status: int, times: int = 1, *, within_seconds: float = 20) -> None:
        """Wait until `times` more requests were answered so from now on."""
        wanted = self._told.statuses[status] + times
        async with asyncio.timeout(within_seconds):
            while self._told.statuses[status] < wanted:
                self._answered.clear()
                await self._answered.wait()

    async def _call(self) -> None:
        async with self._server.client() as client:
            # The end of a server is what these tests are about: what it did not answer, nobody was told.
            with contextlib.suppress(httpx.TransportError):
                while not self._ending:
                    await self._deploy(client)

    async def _deploy(self, client: httpx.AsyncClient) -> None:
        number = next(self._told.numbers)
        project, source = f"p-{number}", f"services:\n  web:\n    image: nginx:{number}\n{self._padding}"
        key = str(uuid.uuid4()) if number % 2 else ""
        headers = {"Idempotency-Key": key} if key else {}
        answer = await client.post(
            "/deploy", headers=headers, json={"project_name": project, "compose_file": source, **self._fields}
        )
        if answer.is_success:
            document = answer.json()
            self._told.deploys.append(Deploy(document["job_id"], document["deployment_id"], project, source, key))
        self._told.statuses[answer.status_code] += 1
        self._answered.set()


_UNAUDITED = """
SELECT project_name FROM deployment d
WHERE (SELECT count(*) FROM audit a WHERE a.result_id = d.id AND a.action = 'deploy' AND a.outcome = 'done') != 1
"""
_AUDITED_TWICE = """
SELECT object FROM audit LEFT JOIN job ON job.id = job_id
WHERE action = 'deploy' AND outcome = 'done' AND job.id IS NULL
UNION SELECT object FROM audit WHERE action = 'deploy' AND outcome = 'done' GROUP BY job_id HAVING count(*) > 1
"""
_KEPT = """
SELECT job.id, deployment.id, deployment.project_name, CAST(compose_file.content AS TEXT),
       COALESCE(idempotency_record.key, '')
FROM job JOIN deployment ON deployment.id = job.deployment_id
JOIN compose_file ON compose_file.sha256 = deployment.compose_file_hash
JOIN placement ON placement.project_name = deployment.project_name AND placement.agent_id = deployment.agent_id
LEFT JOIN idempotency_record ON idempotency_record.job_id = job.id
"""


def check_kept(database: Path, told: Told) -> None:
    """Hold the database of a server that is gone against what its callers were told. AssertionError if some is lost."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        kept = {Deploy(*row) for row in connection.execute(_KEPT)}
        unaudited, audited_twice = (connection.execute(query).fetchall() for query in (_UNAUDITED, _AUDITED_TWICE))
        chain = verify_chain(connection)
    lost = set(told.deploys) - kept
    assert not lost, f"{len(lost)} of {len(told.deploys)} acknowledged deploys are lost: {sorted(map(str, lost))[:3]}"
    assert not unaudited, f"{len(unaudited)} deploys are stored without their entry in the audit: {unaudited[:3]}"
    assert not audited_twice, f"the audit tells of deploys that are not there, or twice: {audited_twice[:3]}"
    assert chain is not None
    assert chain.fault is None
