"""A network of its own for agents of a test: a namespace at the end of a virtual cable, which can be made to go dead.

Needs root, and the programs of Debian's iproute2 and iptables. Nothing of it is left when the `with` block ends,
and the rules that drop packets live inside the namespace only.
"""

import asyncio
import itertools
import os
import shutil
from types import TracebackType
from typing import Self

from tests.support.faults import cannot, need

_numbers = itertools.count()


class RemoteNetwork:
    """`async with RemoteNetwork() as there:` `there.here` is this machine's address, as seen from there."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.name = f"cp{os.getpid()}n{number}"
        # Of 198.18.0.0/15, which is for tests of networks (RFC 2544); apart from those of other test runs.
        place = (os.getpid() * 16 + number) % (1 << 15)
        third, fourth = divmod(place * 4, 256)
        network = f"198.{18 + third // 256}.{third % 256}"
        self.here, self.there = f"{network}.{fourth + 1}", f"{network}.{fourth + 2}"

    @property
    def wrapper(self) -> tuple[str, ...]:
        """The command that starts another one there."""
        # Whole, for agents of tests have a PATH of their own.
        return (shutil.which("ip") or "ip", "netns", "exec", self.name)

    async def __aenter__(self) -> Self:
        need("ip", "iptables", root=True)
        here, there = f"{self.name}a", f"{self.name}b"
        try:
            await _run("ip", "netns", "add", self.name)
        except OSError as error:
            cannot(f"needs network namespaces: {error}")
        try:
            await _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
            await _run("ip", "address", "add", f"{self.here}/30", "dev", here)
            await _run("ip", "link", "set", here, "up")
            await _run("ip", "-n", self.name, "address", "add", f"{self.there}/30", "dev", there)
            await _run("ip", "-n", self.name, "link", "set", there, "up")
            await _run("ip", "-n", self.name, "link", "set", "lo", "up")
        except BaseException:
            await self._remove()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._remove()

    async def go_dead(self) -> None:
        """Drop every packet in and out, silently; nobody is told that the link is gone."""
        for chain in ("INPUT", "OUTPUT"):
            await _run(*self.wrapper, "iptables", "-A", chain, "-j", "DROP")

    async def heal(self) -> None:
        """Let packets pass again."""
        for chain in ("INPUT", "OUTPUT"):
            await _run(*self.wrapper, "iptables", "-F", chain)

    async def _remove(self) -> None:
        await _run("ip", "netns", "delete", self.name)  # with its end of the cable goes the other


async def _run(*command: str) -> None:
    """Run a command. Raises OSError with what it said when it fails."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"`{' '.join(command)}`: {said.decode().strip()}")
