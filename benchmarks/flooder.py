"""`python -m benchmarks.flooder HOST PORT HOSTNAME`: an agent that floods, 50,000 messages a second while it can.

A process of its own, so that its work is not the generator's. Closed or refused, it dials again at once. Ends
when stdin does and prints a JSON object: how often it was let in, what it sent, the close codes and the statuses of
refusals that it met. The agents' token comes in the environment.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.deploys import Target
from benchmarks.fleet import client_frame, upgrade_request

BLOCK = 1_000
BLOCK_SECONDS = 0.02
TOKEN = "BENCH_AGENT_TOKEN"
MESSAGE = b'{"job_id":"01890000-0000-7000-8000-000000000000","status":"IN_PROGRESS","logs":"and on and on\\n"}'


@dataclass
class Flood:
    """What a flooder met; there once its `with` block has ended."""

    let_in: int = 0
    sent: int = 0
    closes: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)


@contextmanager
def flooding(target: Target, hostname: str) -> Iterator[Flood]:
    """Flood a server for the length of a `with` block."""
    found = Flood()
    command = [sys.executable, "-m", "benchmarks.flooder", target.host, str(target.port), hostname]
    environment = {**os.environ, TOKEN: target.agent_token}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        try:
            yield found
        finally:
            output, _ = process.communicate()
        vars(found).update(json.loads(output))


class _Flooder:
    def __init__(self, host: str, port: int, hostname: str) -> None:
        self._at = (host, port)
        self._request = upgrade_request(Target(host, port, "", os.environ[TOKEN]), hostname)
        self._block = client_frame(0x81, MESSAGE) * BLOCK
        self.let_in = self.sent = 0
        self.closes: Counter[int] = Counter()
        self.refusals: Counter[int] = Counter()

    async def run(self) -> None:
        """Flood, dial again, and so on until cancelled."""
        while True:
            with contextlib.suppress(OSError, EOFError):
                await self._flood_once()

    async def _flood_once(self) -> None:
        reader, writer = await asyncio.open_connection(*self._at)
        try:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status != 101:
                self.refusals[status] += 1
                return
            self.let_in += 1
            pouring = asyncio.create_task(self._pour(writer))
            try:
                self.closes[await self._closed(reader)] += 1
            finally:
                pouring.cancel()
                await asyncio.gather(pouring, return_exceptions=True)
        finally:
            writer.transport.abort()

    async def _pour(self, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            writer.write(self._block)
            await writer.drain()
            self.sent += BLOCK
            due = max(due + BLOCK_SECONDS, clock())
            await asyncio.sleep(due - clock())

    async def _closed(self, reader: asyncio.StreamReader) -> int:
        """Return the code of the close frame; it is told no commands, and answers no pings."""
        try:
            while True:
                opcode, size = await reader.readexactly(2)
                payload = await reader.readexactly(size)
                if opcode == 0x88:
                    return int.from_bytes(payload[:2], "big")
        except (OSError, EOFError):
            return 1006


async def _main() -> None:
    host, port, hostname = sys.argv[1:]
    flooder = _Flooder(host, int(port), hostname)
    running = asyncio.create_task(flooder.run())
    asyncio.get_running_loop().add_reader(sys.stdin, running.cancel)
    print("flooding", flush=True)
    await asyncio.gather(running, return_exceptions=True)
    met = {"closes": flooder.closes, "refusals": flooder.refusals}
    print(json.dumps({"let_in": flooder.let_in, "sent": flooder.sent, **met}))


if __name__ == "__main__":
    asyncio.run(_main())
