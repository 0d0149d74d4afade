"""`python -m benchmarks.probe HOST PORT AGENT_ID`: what a caller of the REST API feels while others make a noise.

A process of its own, for a busy generator would time itself. Asks by the clock, whether or not the answer before
has come, and times from the moment that was due; so a server that stands still is seen by all who would have
asked. Ends when stdin does and prints what it timed: a JSON list of [due, seconds, status], due on the clock of
`time.monotonic`, which all processes share. The API token comes in the environment.
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from benchmarks.deploys import COMPOSE_FILE, PROJECT_PREFIX, Target, http_request

INTERVAL_SECONDS = 0.02
CONNECTIONS = 100
PATIENCE_SECONDS = 60.0
TOKEN = "BENCH_API_TOKEN"

Sample = tuple[float, float, int]


@dataclass
class Probing:
    """The samples of one probe; there once its `with` block has ended."""

    samples: list[Sample] = field(default_factory=list)

    def between(self, began: float, ended: float) -> list[float]:
        """Return, sorted, the seconds of the answers that were due in a time of `time.monotonic`."""
        return sorted(seconds for due, seconds, _ in self.samples if began <= due <= ended)

    @property
    def refused(self) -> list[int]:
        """The statuses of answers that were no 200; 0 for none at all."""
        return [status for _, _, status in self.samples if status != 200]


@contextmanager
def probing(target: Target, agent_id: int | str) -> Iterator[Probing]:
    """Probe a server for the length of a `with` block."""
    found = Probing()
    command = [sys.executable, "-m", "benchmarks.probe", target.host, str(target.port), str(agent_id)]
    environment = {**os.environ, TOKEN: target.api_token}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        try:
            yield found
        finally:
            output, _ = process.communicate()
        found.samples = [(due, seconds, status) for due, seconds, status in json.loads(output)]


def quantile(ascending: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]


class _Probe:
    def __init__(self, target: Target, agent_id: int) -> None:
        self._target = target
        self._agent_id = agent_id
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.samples: list[Sample] = []

    async def run(self, ended: asyncio.Event) -> None:
        """Ask by the clock until told to end; return when all has been answered."""
        requests = self._requests()
        target = self._target
        # Callers hold connections; a new one would wait in the kernel's queue behind those of all agents.
        self._idle = [await asyncio.open_connection(target.host, target.port) for _ in range(CONNECTIONS)]
        due = time.monotonic()
        async with asyncio.TaskGroup() as asking:
            while not ended.is_set():
                asking.create_task(self._ask(next(requests), due))
                due += INTERVAL_SECONDS
                await asyncio.sleep(due - time.monotonic())

    async def _ask(self, request: bytes, due: float) -> None:
        status = 0
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = (
                    self._idle.pop()
                    if self._idle
                    else await asyncio.open_connection(self._target.host, self._target.port)
                )
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                status = int(head.split(b" ", 2)[1])
                self._idle.append((reader, writer))
        except (OSError, EOFError, TimeoutError, ValueError):
            pass
        self.samples.append((due, time.monotonic() - due, status))

    def _requests(self) -> Iterator[bytes]:
        for number in count():
            yield http_request(self._target, "GET", "/agents?limit=1")
            yield http_request(self._target, "GET", "/jobs?limit=1")
            name = f"{PROJECT_PREFIX.decode()}probe-{number:06}"
            file = base64.b64encode(COMPOSE_FILE.format(index=number, name=name).encode()).decode()
            document = {"project_name": name, "compose_file_base64": file, "agent_id": self._agent_id}
            body = json.dumps({**document, "when_offline": "queue"}).encode()
            yield http_request(self._target, "POST", "/deploy", body)


async def _main() -> None:
    host, port, agent_id = sys.argv[1:]
    probe = _Probe(Target(host, int(port), os.environ[TOKEN], ""), int(agent_id))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    print("probing", flush=True)
    await probe.run(ended)
    print(json.dumps(probe.samples))


if __name__ == "__main__":
    asyncio.run(_main())
