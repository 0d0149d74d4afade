"""The real Docker engine in tests: whether there is one, images without a registry, events, and clean-up.

Used by the end-to-end tests. Everything a test makes in the engine carries its project's name, unique to the
test, and is removed when the test ends, however it ends.
"""

import asyncio
import functools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import engine
from examples.local_image import content_tag, find_static_busybox, import_image

EVENT_SECONDS = 60
"""How long a test waits for something that Docker will do at once, on a machine that is busy."""


@functools.cache
def docker_available() -> str | None:
    """Return why the tests cannot use Docker here, in one line, or None if they can."""
    try:
        engine.versions()
    except engine.DockerError as error:
        return f"no Docker engine with Compose can be used: {error}"
    if find_static_busybox() is None:
        return "no static busybox to make images from: install busybox-static"
    return None


@pytest.fixture(scope="session")
def require_docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Skip the test where Docker cannot be used; with REQUIRE_DOCKER=1 in the environment, fail it."""
    with pytest.MonkeyPatch.context() as patch:
        # Debian's docker.io brings no Compose; the development tools do, as a plugin for this session only.
        own = Path(sys.executable).parent / "docker-compose"
        if engine.compose_version() is None and own.exists():
            plugins = tmp_path_factory.mktemp("docker-config") / "cli-plugins"
            plugins.mkdir()
            (plugins / "docker-compose").symlink_to(own)
            patch.setenv("DOCKER_CONFIG", str(plugins.parent))
        reason = docker_available()
        if reason is not None and os.environ.get("REQUIRE_DOCKER") == "1":
            pytest.fail(f"REQUIRE_DOCKER=1, but {reason}", pytrace=False)
        if reason is not None:
            pytest.skip(reason)
        yield


@pytest.fixture(scope="session")
def web_image(require_docker: None) -> str:
    """The name of a local image that holds busybox. It stays in the engine for the next run."""
    busybox = find_static_busybox()
    assert busybox is not None
    name = f"instadeploy-example/web:{content_tag(busybox)}"
    if not engine.has_image(name):
        import_image(busybox, name)
    return name


@pytest.fixture
def project(require_docker: None) -> Iterator[str]:
    """A project name of the test's own; what the engine has of it is removed at the end."""
    name = f"e2e-{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        engine.remove_project(name)


async def docker(*arguments: str) -> str:
    """Run `docker` without holding up the event loop; return what it printed."""
    return await asyncio.to_thread(engine.docker, *arguments)


async def until_event(project: str, action: str, *, since: float, service: str = "web") -> dict[str, Any]:
    """Return the first event `action` (`start`, `die`, `health_status: healthy`) of a project's service.

    Events from `since` (seconds, `time.time()`) on count, so none can be missed. AssertionError if none comes.
    """
    process = await asyncio.create_subprocess_exec(
        "docker",
        "events",
        *("--since", f"{since:.6f}", "--until", f"{time.time() + EVENT_SECONDS:.6f}"),
        *("--filter", f"label={engine.PROJECT_LABEL}={project}"),
        *("--filter", f"label=com.docker.compose.service={service}"),
        *("--format", "{{json .}}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    seen = []
    try:
        async for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["Action"] == action:
                return event
            seen.append(event["Action"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    raise AssertionError(f"no event {action!r} of {project}/{service} within {EVENT_SECONDS} s, only {seen}")
