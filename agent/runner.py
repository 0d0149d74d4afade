"""Jobs: turns received commands into answers, each job once, each project's changes in arrival order.

The connection hands every frame to `receive`. A job id that runs or has ended is never run again, and a
final answer is in the journal before it is queued for the socket.
"""

import asyncio
import json
import logging
import time

from agent.commands import Commands, Outcome
from agent.joblog import JobLog
from agent.journal import Journal
from agent.outbox import Outbox
from agent.projects import compose_key
from control_plane.core import wire
from control_plane.core.wire import Command, CommandType, ResponseStatus

RECEIVED = "Command received, processing..."
"""What installed agents say first, to the letter."""

log = logging.getLogger(__name__)


class Runner:
    """Runs jobs on the event loop; `stop` ends the taking of commands, never a running one's child."""

    def __init__(self, commands: Commands, journal: Journal, outbox: Outbox) -> None:
        self._commands = commands
        self._journal = journal
        self._outbox = outbox
        self._running: dict[str, asyncio.Task[None]] = {}
        self._last_of_project: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def receive(self, frame: str | bytes) -> None:
        """Take one frame of the control plane's: run it, answer it from memory, or reject it. Never raises."""
        if self._stopping:
            return
        try:
            command = wire.decode_command(frame if isinstance(frame, str) else frame.decode())
        except (wire.BadMessageError, UnicodeDecodeError) as error:
            log.warning("A command of the control plane cannot be read: %s", error)
            self._reject(frame, str(error))
            return
        if command.id in self._running:
            self._outbox.answer(_encoded(command.id, ResponseStatus.IN_PROGRESS))
        elif self._journal.has(command.id):
            log.info("Job %r was sent again; it is answered, not run again.", command.id)
            self._outbox.final(command.id)
        else:
            self._outbox.answer(_encoded(command.id, ResponseStatus.IN_PROGRESS, RECEIVED))
            self._start(command)

    def stop(self) -> None:
        """Take no more commands. Those that run are left to their children."""
        self._stopping = True
        if self._running:
            log.info("%d running job(s) go on without the agent.", len(self._running))

    def _start(self, command: Command) -> None:
        key = _project_key(command)
        before = self._last_of_project.get(key) if key else None
        task = asyncio.create_task(self._run(command, before))
        self._running[command.id] = task
        if key:
            self._last_of_project[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: str, done: asyncio.Task[None]) -> None:
        if self._last_of_project.get(key) is done:
            del self._last_of_project[key]

    async def _run(self, command: Command, before: asyncio.Task[None] | None) -> None:
        job_log = JobLog(lambda: self._outbox.progress(command.id, take))

        def take() -> str | None:
            piece = job_log.take()
            return _encoded(command.id, ResponseStatus.IN_PROGRESS, piece) if piece else None

        if before is not None:
            await asyncio.wait({before})
        started_at = time.monotonic()
        try:
            outcome = await self._commands.execute(command, job_log)
        except Exception as error:
            log.exception("Job %r failed in a way that the agent does not know.", command.id)
            reason = f"The agent failed on this command ({type(error).__name__}): its log on the host says more."
            outcome = Outcome(ResponseStatus.FAILED, error=reason)
        answer = _final_answer(command.id, outcome, job_log.close())
        if command.type is CommandType.HEALTH_CHECK:
            self._journal.save_fleeting(command.id, answer)
        else:
            await asyncio.to_thread(self._journal.save, command.id, answer)
        del self._running[command.id]
        self._outbox.final(command.id)
        seconds = time.monotonic() - started_at
        level = logging.DEBUG if command.type is CommandType.HEALTH_CHECK else logging.INFO
        log.log(level, "Job %r (%s): %s in %.1f s", command.id, command.type, outcome.status, seconds)

    def _knows(self, job_id: str) -> bool:
        return job_id in self._running or self._journal.has(job_id)

    def _reject(self, frame: str | bytes, reason: str) -> None:
        """Answer FAILED, for the job if the frame names one: else it would wait for its deadline."""
        job_id = wire.UNKNOWN_JOB_ID
        try:
            named = json.loads(frame)["id"]
        except (ValueError, LookupError, TypeError, RecursionError):
            named = None
        if isinstance(named, str) and 0 < len(named) <= 200 and not self._knows(named):
            job_id = named
        self._outbox.answer(_encoded(job_id, ResponseStatus.FAILED, error=f"Invalid command format: {reason}"))


def _project_key(command: Command) -> str | None:
    name = command.payload.get("project_name")
    return compose_key(name) if command.type.changes_project and isinstance(name, str) else None


def _final_answer(job_id: str, outcome: Outcome, whole_log: str) -> str:
    logs = whole_log if outcome.logs is None else outcome.logs
    text = wire.encode_response(
        job_id, outcome.status, logs=logs, error=outcome.error, data=outcome.data, whole_log=True
    )
    if len(text) > wire.MAX_MESSAGE_BYTES:
        text = wire.encode_response(job_id, outcome.status, logs=logs, error=outcome.error, whole_log=True)
    return text


def _encoded(job_id: str, status: ResponseStatus, logs: str = "", error: str = "") -> str:
    return wire.encode_response(job_id, status, logs=logs, error=error)
