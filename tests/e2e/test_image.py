"""The control plane's image and its Compose file, built and run: healthy, nobody's user, read-only, data kept."""

import asyncio
import http.client
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import __version__
from examples import engine
from tests.e2e.python_image import ROOT, import_python_image
from tests.support.docker import docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

BUILD_SECONDS = 300


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image that the Dockerfile makes, on a base made of this machine's own Python."""
    tag = secrets.token_hex(4)
    names = [f"instadeploy-test/{name}:{tag}" for name in ("python", "build-stage", "control-plane")]
    base, stage, built = names
    build = ("build", "--build-arg", f"BASE_IMAGE={base}")
    try:
        import_python_image(base, tmp_path_factory.mktemp("wheels"))
        # The first stage gets a name too, or else it would stay behind as an image that nothing names.
        engine.docker(*build, "--target", "build", "--tag", stage, str(ROOT), seconds=BUILD_SECONDS)
        engine.docker(*build, "--tag", built, str(ROOT), seconds=BUILD_SECONDS)
        yield built
    finally:
        for name in reversed(names):
            if engine.has_image(name):
                engine.docker("image", "rm", "--force", name)


class Stack:
    """The repository's docker-compose.yml on the built image, started from a directory without a `.env`."""

    def __init__(self, directory: Path, project: str, image: str) -> None:
        self.container = f"{project}-control-plane-1"
        override = directory / "override.yml"
        override.write_text(f"services:\n  control-plane:\n    image: {image}\n    build: !reset null\n")
        self._compose = ["docker", "compose", "--project-directory", str(directory), "--project-name", project]
        self._compose += ["--file", str(ROOT / "docker-compose.yml"), "--file", str(override)]

    async def run(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._compose,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0, output
        return output

    async def get(self, path: str, token: str = "") -> tuple[int, Any]:
        """GET from the published port, which may change with every start."""
        published = await docker("port", self.container, "8000/tcp")
        port = int(published.splitlines()[0].rpartition(":")[2])
        return await asyncio.to_thread(_get, port, path, token)


@pytest.fixture
def stack(project: str, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    monkeypatch.setenv("PORT", "0")
    return Stack(tmp_path, project, image)


async def test_the_compose_file_runs_the_image_until_it_is_healthy_and_locked_down(stack: Stack) -> None:
    await stack.run("up", "--detach", "--wait")

    assert (await stack.get("/ready"))[0] == 200
    (facts,) = json.loads(await docker("inspect", stack.container))
    assert facts["State"]["Health"]["Status"] == "healthy"
    assert facts["HostConfig"]["ReadonlyRootfs"] is True
    assert facts["HostConfig"]["CapDrop"] == ["ALL"]
    assert (await docker("exec", stack.container, "id", "-u")).strip() == "10001"
    status = await docker("exec", stack.container, "cat", "/proc/1/status")
    assert re.search(r"CapEff:\s*0+\n", status)
    assert re.search(r"NoNewPrivs:\s*1\n", status)


async def test_tokens_and_database_outlive_the_container_and_a_stop_is_clean(stack: Stack) -> None:
    await stack.run("up", "--detach", "--wait")
    (token,) = set(re.findall(r'Bearer ([\w-]{43})"', await docker("logs", stack.container)))
    assert (await stack.get("/agents"))[0] == 401
    assert (await stack.get("/agents", token))[0] == 200

    await stack.run("stop")
    (facts,) = json.loads(await docker("inspect", stack.container))
    assert facts["State"]["ExitCode"] == 0
    await stack.run("down")
    await stack.run("up", "--detach", "--wait")

    assert (await stack.get("/agents", token))[0] == 200
    assert token not in await docker("logs", stack.container)


async def test_the_image_holds_no_tests_no_pip_and_no_secrets(image: str) -> None:
    listing = await docker(
        "run", "--rm", image, "sh", "-c", "ls -a /app /data; ls /opt/venv/lib/python3*/site-packages"
    )
    names = set(listing.split())
    assert {"run.py", "control_plane", "agent", "fastapi"} <= names
    assert not names & {"tests", "examples", ".git", ".env", "pip", "pytest", "control_plane.db"}


async def test_the_image_can_make_the_agent_that_hosts_install(image: str) -> None:
    make = "from control_plane.api.agent_file import agent_file as made; open('/tmp/a.pyz', 'wb').write(made().content)"
    script = f'python3 -c "{make}" && cd / && python3 -I -S /tmp/a.pyz --version'
    assert (await docker("run", "--rm", image, "sh", "-c", script)).strip() == __version__


@pytest.mark.parametrize("written", ["", "API_TOKEN=from-the-env-file-0123456789"])
def test_docker_compose_accepts_the_file_with_and_without_an_env_file(tmp_path: Path, written: str) -> None:
    if written:
        (tmp_path / ".env").write_text(written)
    command = ["compose", "--project-directory", str(tmp_path), "--file", str(ROOT / "docker-compose.yml")]
    service = json.loads(engine.docker(*command, "config", "--format", "json"))["services"]["control-plane"]
    assert service["environment"]["DATABASE_URL"] == "sqlite:////data/control_plane.db"
    assert service["environment"].get("API_TOKEN", "") == written.removeprefix("API_TOKEN=")


def _get(port: int, path: str, token: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
