"""The floor: the least program that does the same durable work, to compare the real server with.

A bare ASGI app on the same uvicorn and WebSocket implementation, speaking the same wire, with raw sqlite3
behind one group-committing writer thread. A deploy takes the four steps that it takes in the real server,
each on disk before the next begins: accepted, sent, acknowledged, completed. It checks, orders,
times out and authenticates nothing. Started as a process by `python -m benchmarks`.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Row = tuple[Any, ...]

SCHEMA = """
CREATE TABLE agent (id INTEGER PRIMARY KEY, hostname TEXT NOT NULL UNIQUE, status TEXT NOT NULL);
CREATE TABLE compose_file (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE deployment (
    id INTEGER PRIMARY KEY, project_name TEXT NOT NULL, agent_id INTEGER NOT NULL, status TEXT NOT NULL,
    compose_file_hash TEXT NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL, last_logs TEXT);
CREATE TABLE job (
    id TEXT PRIMARY KEY, deployment_id INTEGER NOT NULL, agent_id INTEGER NOT NULL, status TEXT NOT NULL,
    logs TEXT NOT NULL DEFAULT '', attempt INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, updated_at REAL NOT NULL);
CREATE INDEX ix_job_active ON job (agent_id, id) WHERE status IN ('queued', 'in_progress');
"""

STATEMENTS = {
    "agent": "INSERT INTO agent (id, hostname, status) VALUES (?, ?, 'online')",
    "compose_file": "INSERT OR IGNORE INTO compose_file VALUES (?, ?)",
    "deployment": "INSERT INTO deployment VALUES (?, ?, ?, 'pending', ?, ?, ?, NULL)",
    "job": "INSERT INTO job VALUES (?, ?, ?, 'queued', '', 0, ?, ?)",
    "sent": "UPDATE job SET attempt = attempt + 1, updated_at = ? WHERE id = ? AND status = 'queued'",
    "in_progress": "UPDATE job SET status = 'in_progress', updated_at = ? WHERE id = ? AND status = 'queued'",
    "completed": "UPDATE job SET status = 'completed', logs = ?, updated_at = ?"
    " WHERE id = ? AND status IN ('queued', 'in_progress')",
    "running": "UPDATE deployment SET status = 'running', last_logs = ?, updated_at = ? WHERE id = ?",
}
"""In the order in which one group runs them; a job's steps never come in another."""


class GroupWriter:
    """Commits whatever waits in one transaction, in a thread of its own."""

    def __init__(self, database: Path) -> None:
        self._queue: SimpleQueue[tuple[dict[str, Row], asyncio.Future[None] | None] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def write(self, rows: dict[str, Row]) -> asyncio.Future[None]:
        """Queue rows by statement; the future is done when they are on disk."""
        stored: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((rows, stored))
        return stored

    def write_unwatched(self, rows: dict[str, Row]) -> None:
        """Queue rows that nobody waits for."""
        self._queue.put((rows, None))

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        with sqlite3.connect(self._database, isolation_level=None) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(SCHEMA)
            while (group := self._next_group()) is not None:
                self._commit(db, group)
        db.close()

    def _next_group(self) -> list[tuple[dict[str, Row], asyncio.Future[None] | None]] | None:
        group = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if self._queue.empty():
                return group
            item = self._queue.get()
        return None

    def _commit(self, db: sqlite3.Connection, group: list[tuple[dict[str, Row], asyncio.Future[None] | None]]) -> None:
        by_statement: dict[str, list[Row]] = {name: [] for name in STATEMENTS}
        for rows, _ in group:
            for name, row in rows.items():
                by_statement[name].append(row)
        db.execute("BEGIN IMMEDIATE")
        for name, batch in by_statement.items():
            if batch:
                db.executemany(STATEMENTS[name], batch)
        db.execute("COMMIT")
        waiting = [stored for _, stored in group if stored is not None]
        if waiting:
            self._loop.call_soon_threadsafe(_resolve, waiting)


def _resolve(waiting: list[asyncio.Future[None]]) -> None:
    for stored in waiting:
        if not stored.done():
            stored.set_result(None)


class Floor:
    """The ASGI app: POST /deploy, GET /agents, GET /health, and agents on /ws."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._writer: GroupWriter
        self._sockets: dict[int, Send] = {}
        self._hostnames: dict[str, int] = {}
        self._deployments: dict[str, int] = {}
        self._deployment_ids = count(1)
        self._dispatches: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._agent(scope, receive, send)
        else:
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._writer = GroupWriter(self._database)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._writer.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/deploy":
            document = await self._deploy(receive)
        elif scope["path"] == "/agents":
            agents = [{"id": number, "hostname": name} for name, number in self._hostnames.items()]
            document = {"agents": agents, "total": len(agents), "next_cursor": None}
        else:
            document = {"status": "healthy", "connected_agents": len(self._sockets)}
        body = json.dumps(document, separators=(",", ":")).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _deploy(self, receive: Receive) -> dict[str, Any]:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        asked = json.loads(body)
        content = base64.b64decode(asked["compose_file_base64"])
        digest = hashlib.sha256(content).hexdigest()
        agent_id = asked.get("agent_id") or next(iter(self._sockets))
        job_id, deployment_id, now = str(uuid.uuid4()), next(self._deployment_ids), time.time()
        accepted = {
            "compose_file": (digest, content),
            "deployment": (deployment_id, asked["project_name"], agent_id, digest, now, now),
            "job": (job_id, deployment_id, agent_id, now, now),
        }
        await self._writer.write(accepted)
        self._deployments[job_id] = deployment_id
        dispatch = asyncio.get_running_loop().create_task(self._dispatch(job_id, agent_id, asked))
        self._dispatches.add(dispatch)
        dispatch.add_done_callback(self._dispatches.discard)
        return {"job_id": job_id, "deployment_id": deployment_id, "agent_id": agent_id, "status": "queued"}

    async def _dispatch(self, job_id: str, agent_id: int, asked: dict[str, Any]) -> None:
        await self._writer.write({"sent": (time.time(), job_id)})
        payload = {"project_name": asked["project_name"], "compose_file_base64": asked["compose_file_base64"]}
        command = {"id": job_id, "type": "DEPLOY_COMPOSE", "payload": payload}
        text = json.dumps(command, separators=(",", ":"))
        await self._sockets[agent_id]({"type": "websocket.send", "text": text})

    async def _agent(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        hostname = next(value for name, value in scope["headers"] if name == b"x-agent-hostname").decode()
        number = self._hostnames.get(hostname)
        if number is None:
            number = self._hostnames[hostname] = len(self._hostnames) + 1
            await self._writer.write({"agent": (number, hostname)})
        await send({"type": "websocket.accept"})
        self._sockets[number] = send
        while (message := await receive())["type"] == "websocket.receive":
            self._answer(json.loads(message["text"]))
        del self._sockets[number]

    def _answer(self, answer: dict[str, Any]) -> None:
        job_id, now = answer["job_id"], time.time()
        if answer["status"] == "IN_PROGRESS":
            self._writer.write_unwatched({"in_progress": (now, job_id)})
            return
        deployment_id = self._deployments.pop(job_id)
        self._writer.write_unwatched(
            {
                "completed": (answer["logs"], now, job_id),
                "running": (answer["logs"], now, deployment_id),
            }
        )


def main() -> None:
    """Serve until SIGTERM on 127.0.0.1. `--database` names a file that does not exist yet."""
    parser = argparse.ArgumentParser(description="the bare server that the benchmarks compare with")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", type=Path, required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        Floor(arguments.database),
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        backlog=4096,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
