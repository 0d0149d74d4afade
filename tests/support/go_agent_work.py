"""What an installed Go agent does with a command once it has one: no socket, no clock but the monotonic one.

Owned by `GoAgent`, which brings the commands and carries the answers. A host keeps no record of job
ids, so a command that comes twice is carried out twice; `overlaps` tells whether that did harm.
"""

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

_PROJECT_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_CHANGES_PROJECT = {"DEPLOY_COMPOSE", "STOP_COMPOSE"}


@dataclass(frozen=True)
class Command:
    """A command as the agent read it. Unknown keys were dropped."""

    id: str
    type: str
    payload: dict[str, Any]

    @property
    def project(self) -> str:
        """The project that it is about; empty for HEALTH_CHECK."""
        return str(self.payload.get("project_name", ""))


@dataclass(frozen=True)
class Outcome:
    """What the final answer says."""

    status: str = "COMPLETED"
    logs: str = ""
    error: str = ""
    data: Any = None

    @classmethod
    def failed(cls, error: str, logs: str = "") -> "Outcome":
        """Return the outcome of work that went wrong."""
        return cls("FAILED", logs, error)


@dataclass
class Execution:
    """One run of one command. Times are `time.monotonic()` seconds."""

    job_id: str
    type: str
    project: str
    started_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None
    """None while it runs, and for ever if the agent's process died before it ended."""

    @property
    def compose_project(self) -> str:
        """What Compose makes of the directory's name: `Web`, `_web` and `web` are one project."""
        return self.project.lower().lstrip("_-")


Work = Callable[[Command], Awaitable[Outcome]]


def read_command(text: str) -> Command:
    """Parse a frame as the agent does. Raises ValueError, to be answered with the job id `unknown`."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise TypeError("a command is a JSON object")
    job_id, kind, payload = document.get("id"), document.get("type"), document.get("payload")
    if not isinstance(job_id, str) or not isinstance(kind, str) or not isinstance(payload, dict):
        raise TypeError("id and type must be strings and payload an object")
    return Command(job_id, kind, payload)


def answer_text(job_id: str, outcome: Outcome) -> str:
    """Return an answer as the agent writes it: `logs` always, `error` and `data` only when not empty."""
    document = {"job_id": job_id, "status": outcome.status, "logs": outcome.logs}
    if outcome.error:
        document["error"] = outcome.error
    if outcome.data is not None:
        document["data"] = outcome.data
    return json.dumps(document)


def decode_compose_file(text: str) -> bytes:
    """Decode as Go's `base64.StdEncoding` does: strict and padded, line breaks ignored. Raises ValueError."""
    try:
        return base64.b64decode(text.replace("\r", "").replace("\n", "").encode(), validate=True)
    except binascii.Error as error:
        raise ValueError(f"illegal base64 data: {error}") from None


@dataclass
class GoHost:
    """The machine that the agent runs on: its project directories, and what was done there."""

    version: str
    architecture: str
    hostname: str
    projects: dict[str, bytes] = field(default_factory=dict)
    """Compose files by project directory; they outlive the agent's process."""
    up: set[str] = field(default_factory=set)
    """Projects whose last deploy succeeded and that were not stopped since."""
    executions: list[Execution] = field(default_factory=list)
    holds: dict[str, asyncio.Event] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """The error that every change of a project fails with, by project."""

    def begin(self, command: Command) -> Execution:
        """Note that a command starts to run now."""
        execution = Execution(command.id, command.type, command.project, time.monotonic())
        self.executions.append(execution)
        return execution

    async def perform(self, command: Command, work: Work) -> Outcome:
        """Carry a command out, by the agent's rules around what the test made of `docker compose`."""
        if command.type == "HEALTH_CHECK":
            return await work(command)
        ruled = self._ruled_out(command)
        if ruled is None and command.type == "DEPLOY_COMPOSE":
            ruled = self._store_file(command)
        if ruled is not None:
            return ruled
        if hold := self.holds.get(command.project):
            await hold.wait()
        outcome = await work(command)
        if outcome.status == "COMPLETED" and command.type == "DEPLOY_COMPOSE":
            self.up.add(command.project)
        elif outcome.status == "COMPLETED" and command.type == "STOP_COMPOSE":
            self.up.discard(command.project)
        return outcome

    async def compose(self, command: Command) -> Outcome:
        """Succeed at once, as `docker compose` would on a good day: the work unless a test sets another."""
        name = command.project
        if command.type == "HEALTH_CHECK":
            return Outcome(data={"version": self.version, "architecture": self.architecture, "hostname": self.hostname})
        if command.type == "STATUS":
            running = f"\n{name}-web-1   nginx   running" if name in self.up else ""
            return Outcome(logs=f"NAME   IMAGE   STATUS{running}")
        if name in self.failures:
            return Outcome.failed(self.failures[name], logs="docker compose: exit status 1")
        verb = "Started" if command.type == "DEPLOY_COMPOSE" else "Removed"
        return Outcome(logs=f" Container {name}-web-1  {verb}\n")

    def overlaps(self) -> list[tuple[Execution, Execution]]:
        """Return every two changes of one Compose project that ran at the same time."""
        changes = [run for run in self.executions if run.type in _CHANGES_PROJECT]
        return [
            (first, second)
            for first, second in combinations(changes, 2)
            if first.compose_project == second.compose_project
            and first.started_at < (second.ended_at or float("inf"))
            and second.started_at < (first.ended_at or float("inf"))
        ]

    def _ruled_out(self, command: Command) -> Outcome | None:
        if command.type not in {*_CHANGES_PROJECT, "STATUS"}:
            return Outcome.failed(f"unknown command type: {command.type}")
        if not _PROJECT_NAME.fullmatch(command.project):
            return Outcome.failed("invalid project name")
        if command.project in self.projects or command.type == "DEPLOY_COMPOSE":
            return None
        if command.type == "STATUS":
            return Outcome(logs="Project does not exist")
        return Outcome.failed("project does not exist")

    def _store_file(self, command: Command) -> Outcome | None:
        try:
            self.projects[command.project] = decode_compose_file(str(command.payload.get("compose_file_base64", "")))
        except ValueError as error:
            return Outcome.failed(f"failed to decode compose file: {error}")
        return None
