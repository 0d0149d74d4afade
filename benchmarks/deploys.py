"""A batch of deploys: what is posted, and what was seen of each. Shared by callers and fleet in one process.

Everything that can be made before the clock starts is made here. Every deploy has a project name and, unless
asked otherwise, a Compose file of its own, so that no cache of the server can help.
"""

import asyncio
import base64
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

PROJECT_PREFIX = b"bench-"
INDEX_DIGITS = 6

COMPOSE_FILE = """\
services:
  web:
    image: registry.example.com/shop/web:1.{index}
    restart: unless-stopped
    ports:
      - "8080:80"
    environment:
      RELEASE: "{name}"
      LOG_LEVEL: info
    volumes:
      - data:/var/lib/web
volumes:
  data: {{}}
"""


class BenchmarkError(Exception):
    """Something happened that must not; a figure taken beside it would mean nothing."""


@dataclass(frozen=True)
class Target:
    """A running server: where it listens and what it asks for."""

    host: str
    port: int
    api_token: str
    agent_token: str


class Observer(Protocol):
    """Hears what agents are told to do; a Batch is one."""

    def reached(self, project: bytes, now: float) -> None:
        """Note that the command for a project came to its agent."""

    def fail(self, reason: str) -> None:
        """Note what must not happen."""


class Uncounted:
    """Takes the place of a batch where it does not matter what agents are told. What fails is kept in `errors`."""

    def __init__(self, errors: list[str], wanted: int = 0) -> None:
        self._errors = errors
        self._left = wanted
        self.enough = asyncio.Event()
        """Set once `wanted` commands have come."""

    def reached(self, project: bytes, now: float) -> None:
        """Count it, and no more."""
        self._left -= 1
        if not self._left:
            self.enough.set()

    def fail(self, reason: str) -> None:
        """Keep what went wrong."""
        self._errors.append(reason)


class Batch:
    """`count` deploys and their times in `time.perf_counter()` seconds, by index."""

    def __init__(
        self, name: str, count: int, target: Target, agent_ids: Sequence[int | str], *, same_file: bool = False
    ) -> None:
        """Prepare the requests. Without `agent_ids` the server places each; with them they take turns."""
        self.name = name
        self.count = count
        self.requests = [self._request(index, target, agent_ids, same_file) for index in range(count)]
        self.posted_at = array("d", bytes(8 * count))
        self.accepted_at = array("d", bytes(8 * count))
        self.reached_at = array("d", bytes(8 * count))
        self.job_ids: list[str] = [""] * count
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next = 0
        self._open = 2 * count

    def next_index(self) -> int | None:
        """Hand out the next deploy, or None when all are out."""
        if self._next == self.count:
            return None
        self._next += 1
        return self._next - 1

    def accepted(self, index: int, job_id: str, now: float) -> None:
        """Note the 200 answer."""
        self.accepted_at[index] = now
        self.job_ids[index] = job_id
        self._close_one()

    def reached(self, project: bytes, now: float) -> None:
        """Note that the command came to its agent, which has answered it."""
        if not project.startswith(PROJECT_PREFIX + self.name.encode()):
            self.fail(f"an agent was told to deploy {project!r}, which batch {self.name} did not post")
            return
        index = int(project[-INDEX_DIGITS:])
        if self.reached_at[index]:
            self.fail(f"the command for {project!r} was sent twice")
            return
        self.reached_at[index] = now
        self._close_one()

    def fail(self, reason: str) -> None:
        """End the batch: whoever awaits `finished` gets a BenchmarkError."""
        if not self.finished.done():
            self.finished.set_exception(BenchmarkError(reason))

    def dispatch_seconds(self) -> list[float]:
        """Return, sorted, the time from each POST's write to its command's arrival at the agent."""
        return sorted(end - start for start, end in zip(self.posted_at, self.reached_at, strict=True))

    def answer_seconds(self) -> list[float]:
        """Return, sorted, the time from each POST's write to its 200 answer."""
        return sorted(end - start for start, end in zip(self.posted_at, self.accepted_at, strict=True))

    def _close_one(self) -> None:
        self._open -= 1
        if not self._open and not self.finished.done():
            self.finished.set_result(None)

    def _request(self, index: int, target: Target, agent_ids: Sequence[int | str], same_file: bool) -> bytes:
        name = f"{PROJECT_PREFIX.decode()}{self.name}-{index:0{INDEX_DIGITS}}"
        text = COMPOSE_FILE.format(index=0, name="same") if same_file else COMPOSE_FILE.format(index=index, name=name)
        document: dict[str, int | str] = {
            "project_name": name,
            "compose_file_base64": base64.b64encode(text.encode()).decode(),
        }
        if agent_ids:
            document["agent_id"] = agent_ids[index % len(agent_ids)]
        return http_request(target, "POST", "/deploy", json.dumps(document).encode())


def http_request(target: Target, method: str, path: str, body: bytes = b"") -> bytes:
    """Return the bytes of a keep-alive HTTP/1.1 request with the API token; a body is JSON."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {target.host}:{target.port}",
        f"Authorization: Bearer {target.api_token}",
    ]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
