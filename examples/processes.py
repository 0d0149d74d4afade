"""The demo's two children, the control plane and the agent, and the way to talk to the control plane.

Used by demo.py only. Each child has a session of its own, so that a Ctrl-C at the terminal reaches the demo
alone and the demo decides in which order things end.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Child:
    """One process that the demo started, and the file that holds all it wrote."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_lines(self, count: int = 15) -> str:
        """Return the end of what it wrote, for people."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def stop(self, seconds: float) -> int:
        """Ask it to end, wait at most `seconds`, then kill it and all it started. Return its exit status.

        An agent leaves a `docker compose` at work when it ends, each in a session of its own, as it should on a
        real host; here nothing may stay.
        """
        groups = [self.process.pid, *_children_of(self.process.pid)]
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        return self.process.wait()


def start(name: str, arguments: Sequence[str], environment: Mapping[str, str], work: Path) -> Child:
    """Start this Python with `arguments` in `work`, where no `.env` of the user's can reach it."""
    log = work / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Child(name, process, log)


def _children_of(parent: int) -> list[int]:
    try:
        listing = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False, timeout=10
        ).stdout
    except OSError:
        return []
    rows = [line.split() for line in listing.splitlines()]
    return [int(pid) for pid, ppid in rows if int(ppid) == parent]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Answer:
    """One HTTP answer: its status and its body, read as JSON where it is JSON."""

    status: int
    body: Any

    @property
    def problem(self) -> str:
        """The sentence for people in an answer that is an error."""
        if isinstance(self.body, dict) and "detail" in self.body:
            return str(self.body["detail"])
        return f"HTTP {self.status}: {self.body}"


def request(
    port: int, method: str, path: str, *, token: str = "", body: object = None, timeout_seconds: float = 30
) -> Answer:
    """Send one request to 127.0.0.1:`port`. Raises OSError or HTTPException when nobody answers properly."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    finally:
        connection.close()
    try:
        return Answer(response.status, json.loads(text))
    except ValueError:
        return Answer(response.status, text)
