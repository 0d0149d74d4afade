"""The two programs under measurement, each as a process with a fresh database: the server and the floor.

Both get a port of their own, FULL durability and this process's limit of open files. What they print goes to a
file, whose end is shown when one of them does not come up.
"""

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.deploys import BenchmarkError, Target

CHECKOUT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Server:
    """One running program and the file that it keeps its records in."""

    name: str
    target: Target
    database: Path
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return user and system time spent so far, by the program and the processes that it has started."""
        spent = [process.cpu_times() for process in (self.process, *self.process.children())]
        return sum(times.user + times.system for times in spent)

    def slowed_by(self, before: tuple[float, float] = (0.0, 0.0)) -> float:
        """Return how many times longer the event loop took since `before` than it would have with a core of its own."""
        running, waiting = (now - then for now, then in zip(self.scheduled(), before, strict=True))
        return (running + waiting) / running

    def scheduled(self) -> tuple[float, float]:
        """Return the seconds for which the event loop's thread has run, and waited for a core."""
        running, waiting, _ = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/schedstat").read_text().split()
        return int(running) / 1e9, int(waiting) / 1e9

    def resident_bytes(self) -> int:
        """Return the memory that is resident now."""
        return int(self.process.memory_info().rss)

    def get(self, path: str) -> Any:
        """Return the JSON of a GET with the API token. Raises BenchmarkError unless it is a 200."""
        connection = http.client.HTTPConnection(self.target.host, self.target.port, timeout=30)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.target.api_token}"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise BenchmarkError(f"GET {path} was answered with {answer.status} {body[:500]!r}")
        return json.loads(body)

    def agent_ids(self) -> list[int | str]:
        """Return the ids of all agents, oldest first."""
        ids: list[int | str] = []
        path = "/agents?limit=1000"
        while True:
            page = self.get(path)
            ids += [agent["id"] for agent in page["agents"]]
            if not page["next_cursor"]:
                return ids
            path = f"/agents?limit=1000&cursor={page['next_cursor']}"

    def connected_agents(self) -> int:
        """Return how many agents the program says are connected."""
        return int(self.get("/health")["connected_agents"])


@contextmanager
def control_plane(directory: Path) -> Iterator[Server]:
    """Run the real server, through the entry point that operators use."""
    with _running("server", directory, lambda _, __: [sys.executable, str(CHECKOUT / "run.py")]) as server:
        yield server


@contextmanager
def floor(directory: Path) -> Iterator[Server]:
    """Run the bare server of `benchmarks.floor`."""

    def command(port: int, database: Path) -> list[str]:
        return [sys.executable, "-m", "benchmarks.floor", "--port", str(port), "--database", str(database)]

    with _running("floor", directory, command) as server:
        yield server


@contextmanager
def _running(name: str, directory: Path, command: Callable[[int, Path], list[str]]) -> Iterator[Server]:
    place = directory / f"{name}-{secrets.token_hex(4)}"
    place.mkdir()
    target = Target("127.0.0.1", _free_port(), secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    database, log = place / "bench.db", place / "output.log"
    environment = {
        **os.environ,
        "HOST": target.host,
        "PORT": str(target.port),
        "DATABASE_URL": f"sqlite:///{database}",
        "API_TOKEN": target.api_token,
        "AGENT_SECRET_TOKEN": target.agent_token,
        "LOG_LEVEL": "WARNING",
        "PYTHONPATH": str(CHECKOUT),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(target.port, database), cwd=place, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(name, target, database, psutil.Process(process.pid))
    try:
        _await_ready(server, process, log)
        yield server
        if process.poll() is not None:
            raise BenchmarkError(f"the {name} ended while it was measured:\n{_tail(log)}")
    finally:
        _end(process)


def _await_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.get("/ready")
        except (OSError, http.client.HTTPException, BenchmarkError):
            time.sleep(0.05)
        else:
            return
    raise BenchmarkError(f"the {server.name} did not get ready:\n{_tail(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
