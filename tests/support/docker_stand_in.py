"""A stand-in for Docker's program: a shell script named `docker` that records its calls and does as a test says.

Process tests of the Python agent put its directory on the agent's PATH. Scripts and tests wait for each other
through FIFOs, never by the clock, and no real Docker of the machine is ever found.
"""

import asyncio
import os
import shlex
import shutil
from pathlib import Path

from tests.support.patience import PATIENCE_SECONDS

_TOOLS = ("basename", "env", "timeout", "yes")
"""What scripts may use: PATH holds nothing else, so that no real Docker of the machine is found."""

_DOCKER = """#!/bin/sh
home={home}
if [ "$1" = compose ]; then verb=$2; else verb=engine-$1; fi
[ "$3" = --all ] && verb=ps-json
printf '%s\\t%s\\t%s\\n' "$verb" "$(basename "$PWD")" "$*" >> "$home/calls"
[ -e "$home/on-$verb" ] && . "$home/on-$verb"
exit 0
"""


class Fifo:
    """A named pipe between a test and a child's script: either side waits for the other, without a clock."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        # Open both ways, so that opening never blocks and no end is ever missing.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def release(self) -> None:
        """Let one `read` in a script return."""
        os.write(self._descriptor, b"go\n")

    async def wait(self) -> str:
        """Return the next line that a script writes."""
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._descriptor, readable.set)
        try:
            line = b""
            while not line.endswith(b"\n"):
                readable.clear()
                await asyncio.wait_for(readable.wait(), PATIENCE_SECONDS)
                line += os.read(self._descriptor, 1)
            return line.decode().rstrip("\n")
        finally:
            loop.remove_reader(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class StandInDocker:
    """A directory for PATH whose `docker` does as told. Commands are named `up`, `down`, `ps`, `engine-version`."""

    def __init__(self, directory: Path) -> None:
        self.home = directory
        self.path = directory / "bin"
        self.path.mkdir(parents=True)
        self._fifos: list[Fifo] = []
        for tool in _TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        program = self.path / "docker"
        program.write_text(_DOCKER.format(home=shlex.quote(str(directory))))
        program.chmod(0o755)
        self.on("version", "echo 5.6.1")
        self.on("engine-version", "echo 28.2.2")
        self.on("ps", "echo NAME IMAGE; echo web-1 example.invalid/web:1")
        self.on("ps-json", """echo '{"Name":"web-1","State":"running"}'; echo '{"Name":"db-1","State":"exited"}'""")

    def on(self, verb: str, script: str) -> None:
        """Run `script` (sh) for every later call of `verb`."""
        (self.home / f"on-{verb}").write_text(script)

    def fifo(self, name: str) -> Fifo:
        self._fifos.append(Fifo(self.home / name))
        return self._fifos[-1]

    def calls(self, *verbs: str) -> list[tuple[str, str, str]]:
        """Return (verb, directory name, arguments) of the calls so far, in order; all, or those of `verbs`."""
        try:
            lines = (self.home / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        rows = [line.split("\t") for line in lines]
        return [(row[0], row[1], row[2]) for row in rows if not verbs or row[0] in verbs]

    def close(self) -> None:
        for each in self._fifos:
            each.close()
