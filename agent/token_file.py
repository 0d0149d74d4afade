"""The file that keeps this agent's own token: one for each control plane that the agent has enrolled at.

`credentials` reads it at the start and writes it when the agent enrols. A token is replaced whole or not at all and is
on the disk when `write` returns; a file that others can read is refused, as ssh does with its keys.
"""

import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from urllib.parse import urlsplit

from agent.journal import sync_directory, write_synced
from agent.settings import SettingsError, is_token

DIRECTORY = "tokens"
MAX_BYTES = 4096
_PORTS = {"ws": 80, "wss": 443}


class TokenFile:
    """The token's place under the agent's state directory, for one server's URL. Calls block for the disk."""

    def __init__(self, state_dir: Path, server_url: str) -> None:
        """Find the place; nothing is read or made yet."""
        self.path = state_dir / DIRECTORY / _file_name(server_url)

    def read(self) -> str | None:
        """Return the token, or None if none is kept. Raises SettingsError, one line that says what to do."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise SettingsError(f"The token file {self.path} cannot be read ({why}): put that right.") from None
        try:
            self._check_access(os.fstat(descriptor))
            token = os.read(descriptor, MAX_BYTES).decode("utf-8", "replace").strip()
        finally:
            os.close(descriptor)
        if not is_token(token):
            raise SettingsError(
                f"The token file {self.path} holds no token: remove it, then enrol again with --enroll."
            )
        return token

    def write(self, token: str) -> None:
        """Keep `token`, synced to the disk, readable for this user alone. Raises OSError."""
        directory = self.path.parent
        if not directory.is_dir():
            directory.mkdir(mode=0o700)
            sync_directory(directory.parent)
        write_synced(self.path, token + "\n")

    def _check_access(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(f"The token file {self.path} is no regular file: remove it.")
        if found.st_uid != os.geteuid():
            raise SettingsError(
                f"The token file {self.path} belongs to another user: give it to the agent's user with chown."
            )
        if found.st_mode & 0o077:
            raise SettingsError(
                f"The token file {self.path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}): "
                f"run `chmod 600 {self.path}`; if others may have read it, enrol anew."
            )


def _file_name(server_url: str) -> str:
    """Return a name that tells people the server, and different servers apart: a token is never shown to another."""
    url = urlsplit(server_url)
    port = url.port or _PORTS[url.scheme]
    whole = f"{url.scheme}://{url.hostname}:{port}{url.path}?{url.query}"
    readable = re.sub(r"[^a-z0-9.-]", "_", f"{url.hostname}-{port}")[:100]
    return f"{readable}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}.token"
