"""A fake of the Go agent that is installed in the field, for tests: same wire, same habits, same faults.

Tests script its work (`work`, `hold`, `fail`) and its weather (`drop`, `unplug`, `freeze`, `crash`), ask what
it did (`executions`, `overlaps`, `refusals`, `lost`), and wait for events, never for time.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.support.go_agent_process import RECEIVED, GoProcess
from tests.support.go_agent_work import Command, Execution, Outcome, answer_text


class GoAgent(GoProcess):
    """One agent on one host. `async with GoAgent(url, token, "web-1") as agent: await agent.connected()`.

    `time_scale` shortens its waits before it reconnects or restarts (1 s doubling to 2 min, at scale 1).
    `write_seconds` is how long a write takes; 0 is one turn of the event loop, so that only answers
    of the very same instant collide. `headers` replace or add to those of the handshake.
    An exception in a test's `work` surfaces when the `async with` block ends.
    """

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ending = list(self._goroutines)
        self.stop()
        await asyncio.gather(*ending, return_exceptions=True)
        if self._errors and error is None:
            raise self._errors[0]

    # What a test does to it.

    def drop(self) -> None:
        """Cut the connection; the agent dials again and its work goes on."""
        self._cut()

    def unplug(self) -> None:
        """Cut the connection and keep the network down until `plug_in`; the work goes on."""
        self._plugged.clear()
        self._cut()

    def plug_in(self) -> None:
        """Let the agent reach the control plane again."""
        self._plugged.set()

    def freeze(self) -> None:
        """Stop the process (SIGSTOP): it reads, writes and pongs nothing, its sockets stay open."""
        self._thawed.clear()
        if self._socket is not None:
            self._socket.transport.pause_reading()

    def thaw(self) -> None:
        """Continue the process (SIGCONT)."""
        self._thawed.set()
        if self._socket is not None:
            self._socket.transport.resume_reading()

    def hold(self, project: str) -> None:
        """Make the commands of a project take until `release`."""
        self.host.holds[project] = asyncio.Event()

    def release(self, project: str) -> None:
        """End the wait of every held command of a project, and hold no more."""
        self.host.holds.pop(project).set()

    def fail(self, project: str, error: str) -> None:
        """Make deploys and stops of a project fail with `error`."""
        self.host.failures[project] = error

    async def say(self, job_id: str, outcome: Outcome) -> None:
        """Write an answer that no command asked for."""
        await self.send_raw(answer_text(job_id, outcome))

    async def send_raw(self, frame: str | bytes, *, text: bool | None = None) -> None:
        """Write one frame as it is: text for str, binary for bytes, unless `text` says otherwise."""
        if self._socket is None:
            raise AssertionError(f"{self} is not connected")
        await self._socket.send(frame, text=text)

    # What a test asks of it.

    @property
    def executions(self) -> list[Execution]:
        """Every run of a command, in the order of their starts."""
        return self.host.executions

    def overlaps(self) -> list[tuple[Execution, Execution]]:
        """Return every two changes of one Compose project that ran at the same time."""
        return self.host.overlaps()

    async def connected(self, at_least: int = 1) -> None:
        """Wait until a connection is up and `at_least` have been made so far."""
        await self.until(lambda: self.is_connected and self.connections >= at_least, f"connection {at_least}")

    async def disconnected(self) -> None:
        """Wait until no connection is up."""
        await self.until(lambda: not self.is_connected, "the end of the connection")

    async def refused(self, times: int = 1) -> int:
        """Wait for refused handshakes; return the HTTP status of the last."""
        await self.until(lambda: len(self.refusals) >= times, f"refusal {times}")
        return self.refusals[-1]

    async def crashed(self, times: int = 1) -> None:
        """Wait until the process has died of colliding writes (or `crash`) that often."""
        await self.until(lambda: self.crashes >= times, f"crash {times}")

    async def received(self, job_id: str, times: int = 1) -> Command:
        """Wait until the command of a job has come in that often; return it as it came last."""
        came: list[Command] = []

        def is_there() -> bool:
            came[:] = [command for command in self.commands if command.id == job_id]
            return len(came) >= times

        await self.until(is_there, f"command {job_id}, {times} times")
        return came[-1]

    async def started(self, runs: int) -> None:
        """Wait until that many runs of commands have begun."""
        await self.until(lambda: len(self.executions) >= runs, f"the start of {runs} runs")

    async def executed(self, runs: int) -> None:
        """Wait until that many runs have come to an outcome."""
        await self.until(lambda: sum(run.outcome is not None for run in self.executions) >= runs, f"{runs} runs")

    async def answered(self, job_id: str) -> Outcome:
        """Wait until the final answer for a job is written to a socket; return it."""
        finals: list[Outcome] = []

        def is_there() -> bool:
            finals[:] = [said for name, said in self.answers if name == job_id and said != RECEIVED]
            return bool(finals)

        await self.until(is_there, f"the final answer for {job_id}")
        return finals[-1]

    async def until(self, holds: Callable[[], bool], what: str, within_seconds: float = 15.0) -> None:
        """Wait until `holds()`, asked again whenever something happened here.

        Raises AssertionError when it takes too long, and what `work` raised.
        """
        try:
            async with asyncio.timeout(within_seconds):
                while not holds():
                    if self._errors:
                        raise self._errors[0]
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self} waited {within_seconds} s for {what}") from None

    def __repr__(self) -> str:
        state = "up" if self.is_connected else "down"
        return (
            f"<GoAgent {self.hostname} {state}, connections {self.connections}, refusals {self.refusals}, "
            f"closes {self.closes}, crashes {self.crashes}, runs {len(self.executions)}>"
        )
