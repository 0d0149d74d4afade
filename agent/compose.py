"""Docker's command lines as data, and what its output means. Pure: nothing here runs anything.

`commands` and `host` build their lines here and run them elsewhere. The lines are those that the installed
Go agents run; how output looks is told through the environment, for old Compose versions refuse new flags.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DOCKER_MISSING = (
    "Docker is not installed on this host or not on the agent's PATH: install Docker Engine with the Compose "
    "plugin, then deploy again."
)
COMPOSE_MISSING = (
    "Docker Compose is not installed on this host: install the Compose plugin (docker-compose-plugin) or put a "
    "docker-compose binary on the agent's PATH, then deploy again."
)
DAEMON_UNREACHABLE = (
    "The Docker daemon of this host cannot be reached: start it (for example with `systemctl start docker`) and "
    "make sure that the agent's user may use it, then try again."
)

_SECRETS = frozenset({"AGENT_SECRET_TOKEN", "AGENT_ENROLLMENT_TOKEN"})
# They would turn every project of this host into one, or deploy another file than the one that was sent.
_MISLEADING = frozenset({"COMPOSE_FILE", "COMPOSE_PROJECT_NAME"})
_OUTPUT = {
    "COMPOSE_ANSI": "never",
    "COMPOSE_PROGRESS": "plain",
    "BUILDKIT_PROGRESS": "plain",
    "DOCKER_CLI_HINTS": "false",
}
_DAEMON_SIGNS = (
    "cannot connect to the docker daemon",
    "is the docker daemon running",
    "permission denied while trying to connect to the docker",
    "failed to connect to the docker api",
)
_LAST_LINES = 3
_MAX_ERROR_CHARACTERS = 1000


@dataclass(frozen=True)
class Compose:
    """The Compose of this host, as the words that start it, and the lines that the agent runs with it."""

    words: tuple[str, ...]

    def up(self) -> list[str]:
        """Create and start the project in the working directory."""
        return [*self.words, "up", "-d"]

    def down(self) -> list[str]:
        """Stop and remove it."""
        return [*self.words, "down"]

    def ps(self) -> list[str]:
        """Show its running containers as a table for people."""
        return [*self.words, "ps"]

    def ps_json(self) -> list[str]:
        """List all its containers for programs; `parse_ps` reads it."""
        return [*self.words, "ps", "--all", "--format", "json"]

    def check(self) -> list[str]:
        """Check the Compose file and print nothing but what is wrong."""
        return [*self.words, "config", "-q"]

    def version(self) -> list[str]:
        """Print the version alone; also tells whether this Compose is there."""
        return [*self.words, "version", "--short"]


PLUGIN = Compose(("docker", "compose"))
STANDALONE = Compose(("docker-compose",))
ENGINE_VERSION = ("docker", "version", "--format", "{{.Server.Version}}")


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for Docker's commands.

    The agent's tokens are not in it, for `${AGENT_SECRET_TOKEN}` in a Compose file would hand one to a container.
    """
    kept = {name: value for name, value in environ.items() if name not in _SECRETS | _MISLEADING}
    return kept | _OUTPUT


def parse_ps(output: str) -> list[dict[str, Any]]:
    """Read `ps --format json`: one array (Compose before 2.21) or one object a line. Raises ValueError."""
    text = output.strip()
    if text.startswith("["):
        rows = json.loads(text)
    else:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a container is not a JSON object")
    return list(rows)


def explain_failure(argv: list[str], exit_status: int, output: str) -> str:
    """Return the sentence for a command that failed: the known cause if it shows, and what the command said.

    `exit_status` is negative when a signal ended it, as subprocess has it.
    """
    ended = f"exit status {exit_status}" if exit_status >= 0 else f"ended by signal {-exit_status}"
    said = last_meaningful_lines(output)
    what = f"`{' '.join(argv)}` failed ({ended})" + (f": {said}" if said else "; it printed nothing.")
    lowered = output.lower()
    if any(sign in lowered for sign in _DAEMON_SIGNS):
        return f"{DAEMON_UNREACHABLE} {what}"
    return what


def last_meaningful_lines(output: str) -> str:
    """Return the last line, with up to two lines before it that tell of an error, cut to 1,000 characters."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    chosen = lines[-1:]
    for line in reversed(lines[-_LAST_LINES:-1]):
        if ("error" in line.lower() or "failed" in line.lower()) and line not in chosen:
            chosen.insert(0, line)
    return " / ".join(chosen)[-_MAX_ERROR_CHARACTERS:]
