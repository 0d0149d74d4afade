"""Where the two tokens come from: the settings, or else the 0600 file beside the database that this makes.

Called once by `serve.main`. The agents' secret is kept in clear, so that further agents can be given it; of
the API's token only the SHA-256 is kept. The file is always whole: it is replaced in one step, under a lock.
What is damaged or open to others stops the start: secrets made anew in silence would lock everybody out.
"""

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from control_plane.config import Settings, SettingsError
from control_plane.core.tokens import TokenChecker

SECRET_BYTES = 32
_MAX_FILE_BYTES = 64 * 1024
_FILE_FORM = {
    "agent_secret_token": re.compile(r"[A-Za-z0-9_-]{43}"),  # SECRET_BYTES in URL-safe base64
    "api_token_sha256": re.compile(r"[0-9a-f]{64}"),
}
_FILE_HEADER = """\
# Secrets of the InstaDeploy control plane. Keep this file private, and in your backups.
# Delete a line and restart to have a new one made; the new one is announced at that start.
"""


@dataclass(frozen=True)
class Secrets:
    """What presented tokens are checked against.

    `agent` is None when AGENT_SHARED_SECRET=off, `api` when API_AUTH=none leaves the API open.
    """

    agent: TokenChecker | None
    api: TokenChecker | None


@dataclass(frozen=True)
class NewSecrets:
    """What the operator has to be told about the file: which secrets it keeps, and those just made."""

    file: Path
    agent_kept: bool
    api_kept: bool
    agent_token: str | None = None
    """In clear, only when this start made it."""
    api_token: str | None = None
    """In clear, only when this start made it; nobody can learn it again."""


@dataclass(frozen=True)
class _Kept:
    """The content of the file."""

    agent_secret_token: str | None = None
    api_token_sha256: str | None = None


def secrets_path(database: Path) -> Path:
    """Return where the secrets of the control plane with this database file are kept."""
    return database.with_suffix(".secrets")


def resolve_secrets(settings: Settings) -> tuple[Secrets, NewSecrets | None]:
    """Return the checkers, and what to tell the operator (None when the settings name every secret).

    Makes and keeps what the settings leave unset. Raises SettingsError with one line when the file cannot be
    read, written or trusted.
    """
    agent = settings.agent_secret_token.get_secret_value() if settings.agent_secret_token else None
    api = settings.api_token.get_secret_value() if settings.api_token else None
    needs_agent = agent is None and settings.agents_share_a_secret
    needs_api = settings.api_auth == "token" and api is None
    told: NewSecrets | None = None
    kept = _Kept()
    if needs_agent or needs_api:
        kept, told = _load_or_make(secrets_path(settings.database_path), needs_agent, needs_api)
    agent_checker = None
    if settings.agents_share_a_secret:
        agent_checker = TokenChecker.of_plain(agent or str(kept.agent_secret_token))
    if settings.api_auth == "none":
        return Secrets(agent_checker, None), told
    api_checker = TokenChecker.of_plain(api) if api else TokenChecker.of_digest(str(kept.api_token_sha256))
    return Secrets(agent_checker, api_checker), told


def _load_or_make(path: Path, needs_agent: bool, needs_api: bool) -> tuple[_Kept, NewSecrets]:
    try:
        with _locked(path.parent):
            kept = _read(path)
            told = NewSecrets(path, agent_kept=needs_agent, api_kept=needs_api)
            if needs_agent and kept.agent_secret_token is None:
                told = replace(told, agent_token=secrets.token_urlsafe(SECRET_BYTES))
                kept = replace(kept, agent_secret_token=told.agent_token)
            if needs_api and kept.api_token_sha256 is None:
                api_token = secrets.token_urlsafe(SECRET_BYTES)
                told = replace(told, api_token=api_token)
                kept = replace(kept, api_token_sha256=hashlib.sha256(api_token.encode()).hexdigest())
            if told.agent_token or told.api_token:
                _write(path, kept)
            return kept, told
    except OSError as error:
        raise SettingsError(
            f"{path}, where the secrets are kept, cannot be used ({error.strerror}): "
            "give this user access to it, or set AGENT_SECRET_TOKEN and API_TOKEN."
        ) from None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep every other control plane off this directory's secrets until the block ends."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        # A name in a directory survives a power cut only once the directory itself is synced.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> _Kept:
    if not path.exists():
        return _Kept()
    # Before it is opened: a pipe under this name would block the start for ever.
    if not path.is_file():
        raise SettingsError(f"{path}, where the secrets are kept, is not a file: move it away and restart.")
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            # Not tightened in silence: whoever could read it may have done so.
            raise SettingsError(
                f"{path} holds secrets and is open to other users (mode {mode:04o}): "
                f"run `chmod 600 {path}`, or delete it to have new secrets made."
            )
        content = file.read(_MAX_FILE_BYTES)
    try:
        return _parse(content.decode("ascii"))
    except ValueError as error:
        # Only this module's words: another error's text could hold a part of a secret.
        fault = str(error) if not isinstance(error, UnicodeDecodeError) else "it is not text"
        raise SettingsError(
            f"{path}, where the secrets are kept, is damaged ({fault}): restore it from a backup, "
            "or delete it to have new secrets made."
        ) from None


def _parse(text: str) -> _Kept:
    """Return what the file says; ValueError when it is anything but what `_write` leaves, or a line less."""
    if not text.strip():
        raise ValueError("it is empty")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, value = line.partition("=")
        if name not in _FILE_FORM or name in found or not _FILE_FORM[name].fullmatch(value):
            raise ValueError(f"line {number}")
        found[name] = value
    return _Kept(**found)


def _write(path: Path, kept: _Kept) -> None:
    """Put `kept` into the file in one step: after a crash there is the old one or the new."""
    lines = [f"{name}={value}\n" for name in _FILE_FORM if (value := getattr(kept, name))]
    unfinished = path.with_name(f".{path.stem}.new.secrets")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)
        file.write(_FILE_HEADER + "".join(lines))
        file.flush()
        os.fsync(descriptor)
    unfinished.rename(path)
