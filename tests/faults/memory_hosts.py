"""A control plane, its two hosts without a network between them, and the model that is told what each side does.

`go` does not name its process; `python` does, and may be sent a command again. `machine` decides what happens.
"""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from control_plane.core.protocol import Response, ResponseStatus
from control_plane.core.states import FailureReason, JobStatus
from control_plane.fleet.reconcile import MAX_SENDS
from control_plane.fleet.session import AgentSession
from control_plane.operations import results
from control_plane.operations.context import ControlPlane
from control_plane.store.moves import Answer
from tests.support.app import make_app
from tests.support.memory_socket import MemorySocket, identity
from tests.support.model import Model

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Hosts(RuleBasedStateMachine):
    """Two hosts with two projects. `go` does not name its process; `python` does, and may be sent a command again."""

    empty = b""
    """A database with today's schema and nothing in it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.path = Path(self.directory.name) / "control_plane.db"
        self.model = Model()
        self.ids: dict[str, int] = {}
        self.sessions: dict[str, AgentSession] = {}
        self.sockets: dict[str, MemorySocket] = {}
        self.seen: dict[str, int] = {}
        self.sent_to: dict[str, str] = {}
        """Job id → the process that it was last sent to."""
        self.unacknowledged: dict[str, set[str]] = {}
        self.processes = {"go": 0, "python": 0}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do `work`, wait until all that follows from it is done, and tell the model what was sent."""

        async def settled() -> Any:
            try:
                return await work
            finally:
                await self.settle()

        outcome = self.runner.run(settled())
        for host, socket in self.sockets.items():
            for command in socket.commands[self.seen[host] :]:
                self.note_send(host, command["id"])
            self.seen[host] = len(socket.commands)
        return outcome

    def sql(self, query: str, *parameters: object) -> list[Any]:
        """Return what is committed, seen past the program; rows of one column unpacked."""
        rows = self.view.execute(query, parameters).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    async def settle(self) -> None:
        while True:
            await self.plane.inboxes.drain()
            lanes = self.plane.dispatcher._agents.values()
            tasks = [*self.plane.dispatcher._late, *(agent.task for agent in lanes if agent.task is not None)]
            if not tasks:
                return
            await asyncio.wait(tasks)

    def note_send(self, host: str, job_id: str) -> None:
        job = self.model.jobs[job_id]
        if not job.sends and job.kind.changes_project:
            job.due_at = datetime.now(UTC) + timedelta(minutes=15)
        job.sends += 1
        self.sent_to[job_id] = self.process_of(host)
        self.unacknowledged[host].add(job_id)

    def process_of(self, host: str) -> str:
        return f"process-{self.processes[host]}" if host == "python" else ""

    def open(self) -> None:
        async def opened() -> ControlPlane:
            self.stack = AsyncExitStack()
            app = make_app(self.path, shutdown_grace_seconds=0)
            await self.stack.enter_async_context(app.router.lifespan_context(app))
            self.view = sqlite3.connect(self.path)
            self.stack.callback(self.view.close)
            plane: ControlPlane = app.state.control_plane
            return plane

        self.plane: ControlPlane = self.runner.run(opened())

    def connect(self, host: str, *, new_process: bool) -> None:
        if host in self.sessions:
            return
        self.processes[host] += new_process
        socket = MemorySocket()
        capabilities = "resend" if host == "python" else ""
        who = identity(host, instance=self.process_of(host), capabilities=capabilities)
        self.give_up_lost(host)

        async def connected() -> AgentSession:
            async def accept() -> None: ...

            session, has_work = await self.plane.manager.connect(who, socket, accept)
            self.ids[host], self.sessions[host], self.sockets[host] = session.agent_id, session, socket
            self.seen[host], self.unacknowledged[host] = 0, set()
            self.plane.dispatcher.attach(session, has_work=has_work)
            return session

        self.run(connected())

    def give_up_lost(self, host: str) -> None:
        """Tell the model of commands whose process is gone and that were sent as often as may be."""
        for job_id, job in self.model.jobs.items():
            gone = host == "python" and self.sent_to.get(job_id) != self.process_of(host)
            if job.place[0] == self.ids.get(host) and job.sends >= MAX_SENDS and gone:
                self.tell(job_id, JobStatus.FAILED, "The agent's process ended while it ran the command.")

    def disconnect(self, host: str) -> None:
        session = self.sessions.pop(host, None)
        if session is not None:
            self.sockets.pop(host).abort()
            self.plane.dispatcher.detach(session)
            self.run(self.plane.manager.disconnect(session))

    def restart(self) -> None:
        for host in list(self.sessions):
            self.disconnect(host)
        self.runner.run(self.stack.aclose())
        self.open()

    def say(self, host: str, job: str, *statuses: ResponseStatus) -> None:
        session = self.sessions.get(host)
        if session is None:
            return

        async def said() -> None:
            for status in statuses:
                error = f"by {host}" if status is ResponseStatus.FAILED else ""
                results.receive(self.plane, session, Response(job_id=job, status=status, error=error))

        self.unacknowledged[host].discard(job)
        for status in statuses:
            error = f"by {host}" if status is ResponseStatus.FAILED else None
            self.tell(job, JobStatus(status.lower()), error, by=session.agent_id)
        self.run(said())

    def tell(
        self, job: str, status: JobStatus, error: str | None = None, *, by: int | None = None, **more: Any
    ) -> None:
        reason = FailureReason.AGENT_ERROR if status is JobStatus.FAILED else None
        self.model.answer(
            Answer(job, by, status, more.pop("at", datetime.now(UTC)), reason=reason, error=error, **more)
        )
