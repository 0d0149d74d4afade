"""This machine's Docker engine, asked through the `docker` command: is it there, what runs, remove it.

Called by the demo and by the end-to-end tests. What belongs to a project is found by the label that Compose
puts on it, so things are found and removed even when their Compose file is gone.
"""

import os
import subprocess
from collections.abc import Sequence

PROJECT_LABEL = "com.docker.compose.project"
COMMAND_SECONDS = 60
"""How long one docker command may take: stopping a container that ignores SIGTERM takes ten of them."""


class DockerError(RuntimeError):
    """A docker command failed, or there is none; the text is one sentence for the user."""


def docker(*arguments: str, seconds: float = COMMAND_SECONDS) -> str:
    """Run `docker` with these arguments and return what it printed. Raises DockerError."""
    return _output(["docker", *arguments], seconds)


def versions() -> str:
    """Return the engine's and Compose's versions, for people. Raises DockerError naming what is missing."""
    engine = docker("version", "--format", "{{.Server.Version}}", seconds=20).strip()
    compose = compose_version()
    if compose is None:
        raise DockerError(f"the engine {engine} answers, but the command `docker compose` is missing")
    if compose.startswith("1."):
        raise DockerError(f"the engine {engine} answers, but Compose {compose} is too old: install 2 or later")
    return f"engine {engine}, Compose {compose}"


def compose_version() -> str | None:
    """Return the version of the Compose that an agent here would use (the plugin first), None without one."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            return _output([*command, "version", "--short"], seconds=20).strip().removeprefix("v")
        except DockerError:
            continue
    return None


def containers(project: str) -> list[str]:
    """Return the names of the project's containers, ended ones too."""
    return _listed("ps", "--all", "--format", "{{.Names}}", project=project)


def networks(project: str) -> list[str]:
    """Return the names of the project's networks."""
    return _listed("network", "ls", "--format", "{{.Name}}", project=project)


def volumes(project: str) -> list[str]:
    """Return the names of the project's volumes."""
    return _listed("volume", "ls", "--format", "{{.Name}}", project=project)


def remove_project(project: str) -> None:
    """Remove the project's containers, networks and volumes, running or not. Raises DockerError."""
    removals: Sequence[tuple[list[str], list[str]]] = (
        (["rm", "--force", "--volumes"], containers(project)),
        (["network", "rm"], networks(project)),
        (["volume", "rm"], volumes(project)),
    )
    for command, names in removals:
        if names:
            docker(*command, *names)


def has_image(name: str) -> bool:
    """Whether the engine has an image of this name (`repository:tag`)."""
    return bool(docker("image", "ls", "--quiet", name).strip())


def host_is_local() -> bool:
    """Whether published ports are ports of this machine, as far as DOCKER_HOST tells."""
    return os.environ.get("DOCKER_HOST", "unix://").startswith("unix://")


def _listed(*arguments: str, project: str) -> list[str]:
    return docker(*arguments, "--filter", f"label={PROJECT_LABEL}={project}").split()


def _output(command: Sequence[str], seconds: float) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise DockerError(f"there is no command `{command[0]}` on the PATH") from None
    except subprocess.TimeoutExpired:
        raise DockerError(f"`{' '.join(command)}` gave no answer within {seconds:.0f} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise DockerError(f"`{' '.join(command[:3])}`: {lines[-1]}")
    return done.stdout
