"""A host of a test's own, to install on: a root file system with this machine's programs and nothing else.

Used by tests of the installer. Scripts run in it as root of a user namespace: the machine's /usr is read-only there,
and PATH holds only what the test put on it. Its `systemctl` notes its calls and really starts and stops the service.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.faults import cannot, need
from tests.support.patience import PATIENCE_SECONDS

TOOLS = ["cat", "chmod", "dash", "env", "grep", "id", "mkdir", "mktemp", "mv", "rm", "rmdir", "sed", "sh", "tail"]
OWN = ("etc", "opt", "root", "run", "tmp", "var")
"""What a program may write to, and what `tree` looks at."""

_ENTER = """
for directory in {shared}; do
    mkdir -p "$root$directory"
    mount --rbind "$directory" "$root$directory"
done
mount -o remount,bind,ro "$root/usr"
exec chroot "$root" /usr/bin/env -i PATH=/tools HOME=/root "$@"
"""
_SYSTEMCTL = """#!/bin/sh
# Knows one service. `ended` is a named pipe that its keeper writes to when the service is over.
echo "$*" >> /tools/calls
start() {
    rm -f /tools/ended
    mkfifo /tools/ended
    command=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/instadeploy-agent.service)
    env -i PATH=/tools HOME=/root $(cat /etc/instadeploy-agent.env) $command </dev/null >>/tools/log 2>&1 &
    echo $! > /tools/service.pid
    ( exec </dev/null >>/tools/log 2>&1; tail --pid=$! -f /dev/null; rm -f /tools/service.pid; echo > /tools/ended ) &
}
stop() {
    [ ! -e /tools/service.pid ] || { kill "$(cat /tools/service.pid)"; read -r _ < /tools/ended; }
}
case "$*" in
    *is-active*) [ -e /tools/service.pid ] ;;
    stop\\ * | disable\\ *) stop ;;
    start\\ *) start ;;
    restart\\ *) stop; start ;;
    *status*) echo "instadeploy-agent.service - InstaDeploy agent" ;;
esac
"""
_DOCKER = """#!/bin/sh
[ "$1" = compose ] && [ ! -e /tools/no-compose ]
"""


@dataclass(frozen=True)
class Ended:
    """How a script ended."""

    status: int
    output: str


class CleanHost:
    """The host. `close` ends what still runs on it."""

    def __init__(self, directory: Path) -> None:
        """Make it in `directory`, or skip the test where this machine cannot."""
        need("unshare", "chroot", "mount", "dash")
        self.root = directory / "root"
        self.tools = self.root / "tools"
        self._groups: list[int] = []
        for name in (*OWN, "etc/systemd/system", "run/systemd/system", "var/lib", "tools"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        shutil.copy("/etc/ld.so.cache", self.root / "etc")
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path(f"/{name}").is_symlink():
                (self.root / name).symlink_to(os.readlink(f"/{name}"))
        self._shared = ["/dev", "/proc", "/usr", sys.base_prefix]
        self._shared += [f"/{name}" for name in ("bin", "sbin", "lib", "lib64") if not Path(f"/{name}").is_symlink()]
        for tool in (*TOOLS, "mkfifo"):
            (self.tools / tool).symlink_to(shutil.which(tool) or f"/usr/bin/{tool}")
        (self.tools / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
        self.put("systemctl", _SYSTEMCTL)
        self.put("docker", _DOCKER)
        self._check_namespaces()

    def put(self, name: str, script: str) -> None:
        """Put a program on the host's PATH, in the place of what is there."""
        (self.tools / name).unlink(missing_ok=True)
        (self.tools / name).write_text(script)
        (self.tools / name).chmod(0o755)

    def take_away(self, name: str) -> None:
        """Take a program from the host's PATH."""
        (self.tools / name).unlink()

    async def run(self, script: str, *arguments: str, **environ: str) -> Ended:
        """Run `sh -s -- ARGUMENTS` with `script` on its standard input, as `curl | sudo sh` does."""
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", self._enter(), "sh"),
            *(f"{name}={value}" for name, value in environ.items()),
            *("dash", "-s", "--", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._groups.append(process.pid)
        output, _ = await asyncio.wait_for(process.communicate(script.encode()), PATIENCE_SECONDS * 2)
        assert process.returncode is not None
        return Ended(process.returncode, output.decode())

    def calls(self) -> list[str]:
        """Return what `systemctl` was asked for, in order, but for questions."""
        try:
            lines = (self.tools / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if "is-active" not in line and " status " not in line]

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Return mode and content of everything that programs may have changed."""
        found = {}
        for own in OWN:
            for path in sorted((self.root / own).rglob("*")):
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path.relative_to(self.root))] = (path.lstat().st_mode, content)
        return {name: each for name, each in found.items() if f"/{name}" not in self._mount_points()}

    def log(self) -> str:
        """Return what the service has written."""
        return (self.tools / "log").read_text()

    def close(self) -> None:
        """End what the scripts have left running."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def _enter(self) -> str:
        return f"root={self.root}\n" + _ENTER.format(shared=" ".join(self._shared))

    def _mount_points(self) -> set[str]:
        prefix = Path(sys.base_prefix)
        return {str(path) for path in (prefix, *prefix.parents)}

    def _check_namespaces(self) -> None:
        command = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-ec",
            self._enter(),
            "sh",
            "dash",
            "-c",
            ":",
        ]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode:
            cannot(f"needs user and mount namespaces: {tried.stderr.strip()}")
