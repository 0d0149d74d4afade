"""Projects on disk: their names, their directories, and the lock that keeps Compose alone in each.

`commands` goes through here for every path. A name never leads out of the base directory, a Compose file is
replaced whole or not at all, and a lock is held for as long as the agent or a child of it is at work.
"""

import asyncio
import base64
import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

COMPOSE_FILE = "docker-compose.yml"
STATE_DIR = ".instadeploy"
LOCK_POLL_SECONDS = 0.2

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


class ProjectError(Exception):
    """A project's name, file or directory cannot be used; the text is one sentence for the user."""


def check_name(value: object) -> str:
    """Return the project name that a payload carries. Raises ProjectError.

    The rule is the Go agent's, plus one letter or digit: Compose strips the rest from the front.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value) or not compose_key(value):
        raise ProjectError(
            "The command's project_name is not usable: it needs letters, digits, `_` and `-` only, and at least one "
            "letter or digit."
        )
    return value


def compose_key(name: str) -> str:
    """Return what Compose makes of a directory's name: `Web`, `web` and `_web` are one project to it."""
    return name.lower().lstrip("_-")


def decode_compose_file(value: object) -> bytes:
    """Return the file in a payload: standard base64 with padding, line breaks allowed. Raises ProjectError."""
    if isinstance(value, str):
        encoded = value.replace("\r", "").replace("\n", "")
        # Python's strict decoder still lets a superfluous `=` pass.
        if len(encoded) % 4 == 0 and _BASE64.fullmatch(encoded):
            return base64.b64decode(encoded)
    raise ProjectError("The command's compose_file_base64 is not standard base64 with padding: encode the file again.")


class Projects:
    """The directories under `base`. Blocking calls, short but for one fsync."""

    def __init__(self, base: Path) -> None:
        """Make `base` and the agent's own directory in it. Raises OSError."""
        base.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.base = base.resolve()
        self.state_dir = self.base / STATE_DIR
        self._locks = self.state_dir / "locks"
        self.output_dir = self.state_dir / "output"
        for each in (self.state_dir, self._locks, self.output_dir):
            each.mkdir(mode=0o700, exist_ok=True)
        self.state_dir.chmod(0o700)

    def find(self, name: str) -> Path | None:
        """Return the project's directory, or None if nothing was deployed there. Raises ProjectError."""
        try:
            with self._opened(name) as directory:
                file = os.stat(COMPOSE_FILE, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(file.st_mode):
            raise ProjectError(f"{self.base / name / COMPOSE_FILE} is not a regular file: remove it and deploy again.")
        return self.base / name

    def write(self, name: str, content: bytes) -> Path:
        """Put the Compose file into the project's directory and return that. Raises ProjectError, OSError."""
        with contextlib.suppress(FileExistsError):
            (self.base / name).mkdir(mode=0o700)
        with self._opened(name) as directory:
            _replace(directory, COMPOSE_FILE, content)
        return self.base / name

    @contextlib.asynccontextmanager
    async def locked(self, name: str, on_wait: Callable[[], None]) -> AsyncIterator[int]:
        """Hold the lock of the project that Compose sees in `name`; yields its descriptor. Raises OSError.

        A child that inherits the descriptor holds the lock on when this process is gone (flock(2)), which is
        why the file is never removed. `on_wait` is called once if somebody else holds it.
        """
        descriptor = os.open(self._locks / f"{compose_key(name)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _try_lock(descriptor):
                on_wait()
                while not _try_lock(descriptor):  # noqa: ASYNC110 - no event tells of a flock
                    await asyncio.sleep(LOCK_POLL_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)

    def claim(self) -> None:
        """Take these projects for this process until it ends. Raises ProjectError if another agent has them."""
        descriptor = os.open(self.state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _try_lock(descriptor):
            os.close(descriptor)
            raise ProjectError(
                f"Another agent already works in {self.base}: stop it, or give this one a directory of its own with "
                "--projects-dir (PROJECTS_DIR)."
            )
        # Left open on purpose: the lock lives as long as the process does.

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            descriptor = os.open(self.base / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise ProjectError(
                    f"{self.base / name} is a symbolic link or a file: put a directory in its place and try again."
                ) from None
            raise
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(directory: int, name: str, content: bytes) -> None:
    temporary = f".{name}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)
