"""What a caller of the REST API does, for tests of the real server as a process: deploy, stop, ask, wait.

Used by `tests/faults`. A caller waits for what must come, with bounds that only a broken program reaches.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.app import WEB
from tests.support.server import ServerProcess

PATIENCE_SECONDS = 40
POLL_SECONDS = 0.02
TERMINAL = {"completed", "failed"}

Document = dict[str, Any]


class Caller:
    """Speaks to one server; make it with `calling`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, **params: Any) -> Document:
        """Return the JSON of a GET that succeeds."""
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        document: Document = answer.json()
        return document

    async def post(self, path: str, body: Any = None, **params: Any) -> Document:
        """Return the JSON of a POST that succeeds."""
        answer = await self.client.post(path, json=body, params=params)
        assert answer.status_code == 200, answer.text
        document: Document = answer.json()
        return document

    async def deploy(self, project: str, agent_id: int, **fields: Any) -> str:
        """Deploy to an agent, connected or not; return the job's id."""
        body = {"project_name": project, "compose_file": WEB, "agent_id": agent_id, "when_offline": "queue", **fields}
        return str((await self.post("/deploy", body))["job_id"])

    async def stop(self, project: str, agent_id: int, **fields: Any) -> str:
        """Stop a project; return the job's id."""
        return str((await self.post(f"/projects/{project}/stop", {"agent_id": agent_id, **fields}))["job_id"])

    async def ask_status(self, project: str, agent_id: int) -> str:
        """Ask what runs of a project; return the job's id without waiting for the answer."""
        return str((await self.get(f"/projects/{project}/status", agent_id=agent_id, wait=0))["job_id"])

    async def job(self, job_id: str) -> Document:
        """Return a job as it stands."""
        return await self.get(f"/jobs/{job_id}")

    async def over(self, job_id: str, within_seconds: float = PATIENCE_SECONDS) -> Document:
        """Return a job once it is over; a server that is just starting is asked again."""
        async with asyncio.timeout(within_seconds):
            while (job := await self.get(f"/jobs/{job_id}", wait=20))["status"] not in TERMINAL:
                pass
        return job

    async def acknowledged(self, job_id: str) -> Document:
        """Return a job once its agent has said something about it."""
        return await self._until(f"/jobs/{job_id}", "status", {"in_progress", *TERMINAL})

    async def agent(self, hostname: str) -> Document:
        """Return an agent's row once there is one."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                rows: list[Document] = (await self.get("/agents", limit=1000))["agents"]
                if found := [row for row in rows if row["hostname"] == hostname]:
                    return found[0]
                await asyncio.sleep(POLL_SECONDS)

    async def online(self, hostname: str) -> int:
        """Return an agent's id once it is connected."""
        row = await self._until(f"/agents/{(await self.agent(hostname))['id']}", "status", {"online"})
        return int(row["id"])

    async def offline(self, hostname: str) -> int:
        """Return an agent's id once it is shown offline."""
        row = await self._until(f"/agents/{(await self.agent(hostname))['id']}", "status", {"offline"})
        return int(row["id"])

    async def _until(self, path: str, key: str, values: set[str]) -> Document:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                document = await self.get(path)
                if document[key] in values:
                    return document
                await asyncio.sleep(POLL_SECONDS)


@contextlib.asynccontextmanager
async def calling(server: ServerProcess) -> AsyncIterator[Caller]:
    """Yield a caller of a server; it may be restarted meanwhile."""
    async with server.client() as client:
        yield Caller(client)
