"""Inboxes: what agents have answered and the store does not have yet. Bounded; survives a store that is away.

An agent's answers for one job are merged while they wait, so a chatty agent costs one write a commit and not
one a message. An answer leaves its inbox only when it is stored; the inbox outlives the agent's connection.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from control_plane.core.errors import ControlPlaneError, StorageFullError, UnavailableError
from control_plane.core.logs import cut_middle
from control_plane.core.states import JOB_MOVES
from control_plane.store.answers import join_logs
from control_plane.store.moves import Answer

MAX_WAITING_JOBS = 2_000
MAX_WAITING_CHARACTERS = 64 * 1024 * 1024
"""Four of the largest frames: what one agent may make this process remember while the store is away."""
RETRY_SECONDS = 0.5
TOLD_JOBS = 20

log = structlog.get_logger()


class InboxFullError(Exception):
    """An agent has said more than may wait."""


class _Inbox:
    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.storing: set[str] = set()
        """Ids of the jobs whose answers were taken out and are not stored yet."""
        self.characters = 0
        self.task: asyncio.Task[None] | None = None


class Inboxes:
    """One inbox an agent that has something waiting; `record` stores one answer."""

    def __init__(self, record: Callable[[Answer], Awaitable[object]]) -> None:
        self._record = record
        self._inboxes: dict[int, _Inbox] = {}
        self._kept = 0

    def put(self, agent_id: int, answer: Answer) -> None:
        """Take an answer and store it soon. Never waits. Raises InboxFullError."""
        inbox = self._inboxes.setdefault(agent_id, _Inbox())
        earlier = inbox.answers.get(answer.job_id)
        merged = answer if earlier is None else merge(earlier, answer)
        characters = inbox.characters + _size(merged) - (_size(earlier) if earlier else 0)
        too_many = earlier is None and len(inbox.answers) >= MAX_WAITING_JOBS
        if too_many or characters > MAX_WAITING_CHARACTERS:
            raise InboxFullError
        inbox.answers[answer.job_id] = merged
        inbox.characters = characters
        if inbox.task is None:
            inbox.task = asyncio.create_task(self._empty(agent_id, inbox), name=f"inbox-{agent_id}")

    @property
    def waiting_count(self) -> int:
        """How many answers wait to be taken to the store; those on their way there are not among them."""
        return sum(len(inbox.answers) for inbox in self._inboxes.values())

    async def drain(self) -> None:
        """Wait until everything that was put is stored."""
        while tasks := [inbox.task for inbox in self._inboxes.values() if inbox.task is not None]:
            await asyncio.wait(tasks)

    def give_up(self) -> None:
        """Forget what is not stored yet, because the process ends; tells the log whose answers those are."""
        for agent_id, inbox in list(self._inboxes.items()):
            jobs = sorted({*inbox.storing, *inbox.answers})
            log.error("answers_given_up", agent_id=agent_id, count=len(jobs), job_ids=jobs[:TOLD_JOBS])
            if inbox.task is not None:
                inbox.task.cancel()

    async def _empty(self, agent_id: int, inbox: _Inbox) -> None:
        while inbox.answers:
            answers, inbox.answers, inbox.characters = list(inbox.answers.values()), {}, 0
            inbox.storing = {answer.job_id for answer in answers}
            if len(answers) == 1:
                await self._take_out(inbox, answers[0])
            else:
                await asyncio.gather(*(self._take_out(inbox, answer) for answer in answers))
        inbox.task = None
        del self._inboxes[agent_id]

    async def _take_out(self, inbox: _Inbox, answer: Answer) -> None:
        await self._store(answer)
        inbox.storing.discard(answer.job_id)

    async def _store(self, answer: Answer) -> None:
        kept = False
        while True:
            try:
                await self._record(answer)
            except (UnavailableError, StorageFullError) as error:
                if not kept:
                    kept = True
                    self._keep(error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception:
                log.exception("answer_lost", job_id=answer.job_id)
            if kept:
                self._let_go()
            return

    def _keep(self, error: ControlPlaneError) -> None:
        """Count an answer that the store does not take now. One line for all: a full disk may hold the log as well."""
        if not self._kept:
            log.warning("answers_kept", error=error.detail)
        self._kept += 1

    def _let_go(self) -> None:
        self._kept -= 1
        if not self._kept:
            log.info("kept_answers_stored")


def _size(answer: Answer) -> int:
    # Only answers to questions carry data, so that measuring it costs deploys nothing.
    data = 0 if answer.data is None else len(json.dumps(answer.data))
    return len(answer.logs) + len(answer.said_last or "") + len(answer.error or "") + data


def merge(earlier: Answer, later: Answer) -> Answer:
    """Return one answer that says what two of the same job said one after the other; the first final one wins."""
    if not JOB_MOVES[earlier.status]:
        return earlier
    logs = later.logs if later.whole_log else join_logs(earlier.logs, later.logs)
    said_last = later.logs if later.said_last is None else later.said_last
    return replace(later, logs=cut_middle(logs), said_last=said_last, whole_log=later.whole_log or earlier.whole_log)
