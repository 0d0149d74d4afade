"""The commands beside the server, run as an operator runs them: `python run.py backup FILE` and the like.

For tests of what they say and leave behind. Each runs in the directory of the database, as a process.
"""

import asyncio
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from control_plane.config import Settings
from tests.support.server import RUN


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str


async def start(directory: Path, *arguments: str | Path, **env: str) -> asyncio.subprocess.Process:
    """Start a command in this directory."""
    settings = {name.upper() for name in Settings.model_fields}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(RUN),
        *map(str, arguments),
        cwd=directory,
        env={name: value for name, value in os.environ.items() if name not in settings} | env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> Ran:
    """Wait for a command's end."""
    async with asyncio.timeout(60):
        stdout, stderr = await process.communicate()
    return Ran(process.returncode or 0, stdout.decode(), stderr.decode())


async def run(directory: Path, *arguments: str | Path, **env: str) -> Ran:
    """Run a command in this directory to its end."""
    return await ended(await start(directory, *arguments, **env))


async def done(directory: Path, *arguments: str | Path) -> str:
    """Run a command that succeeds; return what it said."""
    ran = await run(directory, *arguments)
    assert ran.status == 0, ran
    assert ran.stderr == ""
    return ran.stdout


async def refused(directory: Path, *arguments: str | Path, **env: str) -> str:
    """Run a command that does nothing; return its one line, after checking that nothing was touched."""
    before = seen(directory)
    ran = await run(directory, *arguments, **env)
    assert ran.status == 2, ran
    assert ran.stdout == ""
    assert ran.stderr.count("\n") == 1, ran
    assert ran.stderr.endswith(".\n")
    assert seen(directory) == before
    return ran.stderr


def seen(directory: Path) -> dict[str, str]:
    """Return every file's name, mode and content, but for the lock, which is empty."""
    return {
        str(path.relative_to(directory)): f"{path.lstat().st_mode:o} {_content(path)}"
        for path in directory.rglob("*")
        if path.suffix != ".lock"
    }


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
