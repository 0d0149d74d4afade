"""The four commands: what each does on this host and what it answers.

The runner calls `execute` for every job and keeps order and identity; this file knows Docker and projects.
Whatever cannot be done becomes a FAILED answer whose sentence says what to do; the agent stays up.
"""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import __version__, compose, host, process
from agent.joblog import WHOLE_LOG_BYTES, BoundedText, JobLog
from agent.projects import ProjectError, Projects, check_name, decode_compose_file
from agent.settings import Settings
from control_plane.core.wire import Command, CommandType, ResponseStatus

PROBE_SECONDS = 10
"""How long HEALTH_CHECK waits for Docker's own answer, so that a daemon that hangs is reported, not waited for."""

MAX_QUERIES = 8
"""How many STATUS and HEALTH_CHECK commands run at once; each is a process or two."""

MAX_ERROR_BYTES = 4096


@dataclass(frozen=True)
class Outcome:
    """A command's end. `logs` None means the job's own log, whole."""

    status: ResponseStatus
    logs: str | None = None
    error: str = ""
    data: Any = None


class CommandFailedError(Exception):
    """The command cannot be done; the text is one sentence for the user."""


class Commands:
    """Runs commands. Concurrent calls are fine; the caller keeps a project's commands in order."""

    def __init__(self, settings: Settings, projects: Projects, around: process.Surroundings) -> None:
        self._settings = settings
        self._projects = projects
        self._around = around
        self._compose: compose.Compose | None = None
        self._queries = asyncio.Semaphore(MAX_QUERIES)

    async def execute(self, command: Command, log: JobLog) -> Outcome:
        """Do `command` and return how it ended; what it prints goes to `log`. Raises nothing that is expected."""
        try:
            match command.type:
                case CommandType.DEPLOY_COMPOSE:
                    return await self._deploy(command.payload, log)
                case CommandType.STOP_COMPOSE:
                    return await self._stop(command.payload, log)
                case CommandType.STATUS:
                    async with self._queries:
                        return await self._status(command.payload)
                case CommandType.HEALTH_CHECK:
                    async with self._queries:
                        return await self._health()
        except (CommandFailedError, ProjectError) as error:
            return Outcome(ResponseStatus.FAILED, error=str(error))
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            return Outcome(
                ResponseStatus.FAILED,
                error=f"The agent's host refused what the command needs ({what}): put that right, then try again.",
            )

    async def _deploy(self, payload: dict[str, Any], log: JobLog) -> Outcome:
        name = check_name(payload.get("project_name"))
        content = decode_compose_file(payload.get("compose_file_base64"))
        found = await self._find_compose()
        async with self._projects.locked(name, lambda: _say_waiting(log)) as lock:
            directory = await asyncio.to_thread(self._projects.write, name, content)
            if not self._settings.dry_run:
                return await self._run(found.up(), directory, lock, log)
            outcome = await self._run(found.check(), directory, lock, log)
            if outcome.status is ResponseStatus.COMPLETED:
                log.note("Dry run: the Compose file is valid; nothing was started.")
            else:
                log.note("Dry run: the Compose file is not valid; nothing was started.")
            return outcome

    async def _stop(self, payload: dict[str, Any], log: JobLog) -> Outcome:
        name = check_name(payload.get("project_name"))
        directory = self._projects.find(name)
        if directory is None:
            raise CommandFailedError("project does not exist")
        if self._settings.dry_run:
            log.note("Dry run: `docker compose down` would stop and remove this project; nothing was done.")
            return Outcome(ResponseStatus.COMPLETED)
        found = await self._find_compose()
        async with self._projects.locked(name, lambda: _say_waiting(log)) as lock:
            return await self._run(found.down(), directory, lock, log)

    async def _status(self, payload: dict[str, Any]) -> Outcome:
        directory = self._projects.find(check_name(payload.get("project_name")))
        if directory is None:
            return Outcome(ResponseStatus.COMPLETED, logs="Project does not exist")
        if self._settings.dry_run:
            return Outcome(
                ResponseStatus.COMPLETED,
                logs="Dry run: this agent starts nothing, so it has no containers to show.\n",
                data=[],
            )
        found = await self._find_compose()
        table, listing = await asyncio.gather(
            process.capture(found.ps(), self._around, directory),
            process.capture(found.ps_json(), self._around, directory),
        )
        logs = _bounded(table.stderr + table.stdout)
        if table.exit_status:
            self._compose = None
            error = compose.explain_failure(found.ps(), table.exit_status, logs)
            return Outcome(ResponseStatus.FAILED, logs, error)
        try:
            data = compose.parse_ps(listing.stdout) if listing.exit_status == 0 else None
        except ValueError:
            data = None
        return Outcome(ResponseStatus.COMPLETED, logs, data=data)

    async def _health(self) -> Outcome:
        data: dict[str, Any] = {
            "version": __version__,
            "architecture": host.architecture(),
            "hostname": self._settings.hostname,
            "dry_run": self._settings.dry_run,
            **host.resources(self._projects.base),
        }
        engine, found = await asyncio.gather(self._engine_version(), self._compose_version())
        data["docker_version"], data["compose_version"] = engine[0], found[0]
        problem = engine[1] or found[1]
        if problem:
            data["docker_error"] = problem
        return Outcome(ResponseStatus.COMPLETED, logs="", data=data)

    async def _engine_version(self) -> tuple[str | None, str]:
        if not self._on_path("docker"):
            return None, compose.DOCKER_MISSING
        argv = list(compose.ENGINE_VERSION)
        try:
            ended = await process.capture(argv, self._around, self._projects.base, PROBE_SECONDS)
        except TimeoutError as error:
            return None, f"The Docker daemon does not answer: {error}"
        if ended.exit_status or not ended.stdout.strip():
            return None, compose.explain_failure(argv, ended.exit_status, ended.stderr)
        return ended.stdout.strip(), ""

    async def _compose_version(self) -> tuple[str | None, str]:
        try:
            found = await self._find_compose()
            ended = await process.capture(found.version(), self._around, self._projects.base, PROBE_SECONDS)
        except (CommandFailedError, TimeoutError) as error:
            return None, str(error)
        return ended.stdout.strip() or None, ""

    async def _run(self, argv: list[str], directory: Path, lock: int, log: JobLog) -> Outcome:
        said = BoundedText(MAX_ERROR_BYTES * 4)

        def on_output(data: bytes) -> None:
            log.write(data)
            said.append(data.decode("utf-8", "replace"))

        exit_status = await process.stream(argv, self._around, directory, lock, on_output)
        if exit_status == 0:
            return Outcome(ResponseStatus.COMPLETED)
        self._compose = None  # Docker may have been removed or replaced: look again next time
        return Outcome(ResponseStatus.FAILED, error=compose.explain_failure(argv, exit_status, said.text()))

    async def _find_compose(self) -> compose.Compose:
        """Return this host's Compose: the plugin, else the standalone binary. Raises CommandFailedError."""
        if self._compose is not None and not self._on_path(self._compose.words[0]):
            self._compose = None
        if self._compose is None:
            docker = self._on_path("docker")
            if docker and await self._works(compose.PLUGIN):
                self._compose = compose.PLUGIN
            elif self._on_path("docker-compose") and await self._works(compose.STANDALONE):
                self._compose = compose.STANDALONE
            else:
                raise CommandFailedError(compose.COMPOSE_MISSING if docker else compose.DOCKER_MISSING)
        return self._compose

    async def _works(self, candidate: compose.Compose) -> bool:
        return (await process.capture(candidate.version(), self._around, self._projects.base)).exit_status == 0

    def _on_path(self, program: str) -> bool:
        return shutil.which(program, path=self._around.environ.get("PATH", "")) is not None


def _say_waiting(log: JobLog) -> None:
    log.note("Waiting for a `docker compose` of an earlier agent process that still works on this project ...")


def _bounded(text: str) -> str:
    kept = BoundedText(WHOLE_LOG_BYTES)
    kept.append(text)
    return kept.text()
