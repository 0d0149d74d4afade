"""The real Docker engine in tests: whether there is one, images without a registry, events, and clean-up.

Used by the end-to-end tests. Everything a test makes in the engine carries its project's name, unique to the
test, and is removed when the test ends, however it ends.
"""

import asyncio
import atexit
import functools
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from examples import engine
from examples.local_image import content_tag, find_static_busybox, import_image

SERVICE_LABEL = "com.docker.compose.service"
EVENT_SECONDS = 60
"""How long a test waits for something that Docker will do at once, on a machine that is busy."""


@functools.cache
def docker_available() -> str | None:
    """Return why the tests cannot use Docker here, in one line, or None if they can."""
    _lend_compose()
    try:
        engine.versions()
    except engine.DockerError as error:
        return f"no Docker engine with Compose can be used: {error}"
    if find_static_busybox() is None:
        return "no static busybox to make images from: install busybox-static"
    return None


def require_docker() -> None:
    """Skip the test about to run where Docker cannot be used; with REQUIRE_DOCKER=1 in the environment, fail it."""
    reason = docker_available()
    if reason is not None and os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(f"REQUIRE_DOCKER=1, but {reason}", pytrace=False)
    if reason is not None:
        pytest.skip(reason)


def _lend_compose() -> None:
    """Debian's docker.io brings no Compose. The development tools do: as a plugin, for this test run only."""
    own = Path(sys.executable).parent / "docker-compose"
    if engine.compose_version() is not None or not own.exists():
        return
    directory = tempfile.TemporaryDirectory(prefix="docker-config-")
    atexit.register(directory.cleanup)
    plugins = Path(directory.name) / "cli-plugins"
    plugins.mkdir()
    (plugins / "docker-compose").symlink_to(own)
    os.environ["DOCKER_CONFIG"] = directory.name


@pytest.fixture(scope="session")
def web_image() -> str:
    """The name of a local image that holds busybox. It stays in the engine for the next run."""
    busybox = find_static_busybox()
    assert busybox is not None
    name = f"instadeploy-example/web:{content_tag(busybox)}"
    if not engine.has_image(name):
        import_image(busybox, name)
    return name


@pytest.fixture
def project() -> Iterator[str]:
    """A project name of the test's own; what the engine has of it is removed at the end."""
    name = f"e2e-{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        engine.remove_project(name)


async def docker(*arguments: str) -> str:
    """Run `docker` without holding up the event loop; return what it printed."""
    return await asyncio.to_thread(engine.docker, *arguments)


class Events:
    """`async with Events(project) as events:` what the engine says of a project, from `since` on (`time.time()`).

    Open it before the act whose events are awaited: the engine remembers 256 past events, and each health check
    is three.
    """

    def __init__(self, project: str, since: float | None = None) -> None:
        self._project = project
        self._since = time.time() if since is None else since
        self._seen: list[dict[str, Any]] = []
        self._more = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *("docker", "events", "--since", f"{self._since:.6f}", "--format", "{{json .}}"),
            *("--filter", f"label={engine.PROJECT_LABEL}={self._project}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reader = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._reader is not None
        self._process.kill()
        await self._process.wait()
        await self._reader

    async def until(self, action: str, *, service: str = "web", since: float = 0.0) -> None:
        """Return when `action` (`start`, `die`, `health_status: healthy`) has happened to a service.

        Only what happened after `since` counts. AssertionError if it does not happen within EVENT_SECONDS.
        """
        try:
            async with asyncio.timeout(EVENT_SECONDS):
                while (service, action) not in {(name, what) for at, name, what in self._happened() if at >= since}:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            told = [(name, what) for _, name, what in self._happened() if not what.startswith("exec_")]
            raise AssertionError(f"no {action!r} of {service} within {EVENT_SECONDS} s, only {told}") from None

    def _happened(self) -> list[tuple[float, str, str]]:
        return [
            (event["timeNano"] / 1e9, event["Actor"]["Attributes"].get(SERVICE_LABEL, ""), event["Action"])
            for event in self._seen
        ]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self._seen.append(json.loads(line))
            self._more.set()


@pytest.fixture
async def events(project: str) -> AsyncIterator[Events]:
    """The events of the test's project, all from the test's beginning."""
    async with Events(project) as running:
        yield running
