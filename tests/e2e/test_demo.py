"""`make demo` as a newcomer meets it: with Docker, without, when something is wrong, and interrupted."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest

from examples import engine
from tests.support.docker import Events

ROOT = Path(__file__).parents[2]
STEPS = (
    "Look for Docker",
    "Make the example's image",
    "Start the control plane",
    "Start an agent",
    "Deploy the project",
    "Ask for its status",
    "Fetch its page",
    "Stop it",
    "Check that nothing of it is left",
    "Stop the agent and the control plane",
)


def demo(directory: Path, *, python: str | Path = sys.executable, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-m", "examples.demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory), "PYTHONIOENCODING": "utf-8", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def created(project: str, began: float) -> None:
    """Return when the project's container is made."""
    async with Events(project, began) as events:
        await events.until("create")


def marks_of(output: str) -> dict[str, str]:
    """What each step that was reached shows after its title: ✔, ○ or ✘."""
    return {
        title: mark for title in STEPS for mark in re.findall(rf"^ *\d+\. {title}.*? ([✔○✘]) ", output, re.MULTILINE)
    }


def python_without_compose(directory: Path) -> Path:
    """A Python with this one's packages and none of its programs, as after `make demo` on a new machine."""
    venv.create(directory, symlinks=True, with_pip=False)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "development.pth").write_text(sysconfig.get_path("purelib"))
    return directory / "bin" / "python3"


@pytest.mark.docker
def test_with_docker_each_step_is_done_and_nothing_stays(tmp_path: Path) -> None:
    process = demo(tmp_path)
    output, _ = process.communicate(timeout=110)

    assert process.returncode == 0, output
    assert marks_of(output) == dict.fromkeys(STEPS, "✔"), output
    assert "Hello from InstaDeploy" in output
    (project,) = set(re.findall(r"hello-[0-9a-f]{6}\b", output))
    assert engine.containers(project) == engine.networks(project) == []
    assert not engine.has_image(f"instadeploy-example/{project}:local")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.docker
def test_ctrl_c_in_the_middle_of_the_deploy_takes_everything_away(tmp_path: Path) -> None:
    began = time.time()
    with demo(tmp_path) as process:
        assert process.stdout is not None
        project = ""
        while not project:
            project = "".join(re.findall(r"deployed as (hello-\w+)", process.stdout.readline()))
        asyncio.run(created(project, began))
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()

    assert process.returncode == 130, rest
    assert "Ask for its status" not in rest
    assert engine.containers(project) == engine.networks(project) == []
    assert not engine.has_image(f"instadeploy-example/{project}:local")
    assert list(tmp_path.iterdir()) == []


def test_without_an_engine_it_says_so_and_shows_a_dry_run(tmp_path: Path) -> None:
    process = demo(tmp_path, DOCKER_HOST="unix:///nonexistent/docker.sock")
    output, _ = process.communicate(timeout=110)

    assert process.returncode == 0, output
    marks = marks_of(output)
    assert [title for title in STEPS if marks[title] == "○"] == [
        "Look for Docker",
        "Make the example's image",
        "Fetch its page",
        "Check that nothing of it is left",
    ], output
    assert "/nonexistent/docker.sock" in output
    assert "was checked, and no container was started" in output


def test_without_docker_and_compose_it_shows_the_agents_refusal_and_claims_nothing(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    python = python_without_compose(tmp_path / "python")
    process = demo(work, python=python, PATH=str(python.parent))
    output, _ = process.communicate(timeout=110)

    assert process.returncode == 0, output
    marks = marks_of(output)
    assert [title for title in STEPS if marks[title] == "✔"] == [
        "Start the control plane",
        "Start an agent",
        "Stop the agent and the control plane",
    ], output
    assert "no command `docker` on the PATH" in output
    assert "Docker is not installed on this host" in output
    assert "could not be checked, and no container was started" in output


def test_a_control_plane_that_does_not_start_fails_the_demo_and_shows_why(tmp_path: Path) -> None:
    process = demo(tmp_path, LOG_LEVEL="nonsense")
    output, _ = process.communicate(timeout=110)

    assert process.returncode == 1, output
    assert marks_of(output)["Start the control plane"] == "✘", output
    assert "The last lines of the control plane:" in output
    assert "LOG_LEVEL" in output
    assert list(tmp_path.iterdir()) == []
