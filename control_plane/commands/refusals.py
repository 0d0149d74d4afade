"""Why a command does nothing, in one line for the operator; and what errors of files and of SQLite mean in words."""

import errno
import sqlite3
from pathlib import Path


class CommandError(Exception):
    """The command cannot be carried out; its text is one line that says why, and nothing was changed. Exit status 2."""


_FILE_REASONS = {
    errno.EACCES: "this user may not",
    errno.EPERM: "this user may not",
    errno.ENOSPC: "there is no room on its disk",
    errno.EDQUOT: "there is no room on its disk",
    errno.EROFS: "its file system is read-only",
    errno.ENAMETOOLONG: "its name is too long",
}
_FAULTS_OF_SOURCE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SQLITE_REASONS = {
    sqlite3.SQLITE_FULL: "there is no room on its disk",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_BUSY: "another program holds it locked",
    sqlite3.SQLITE_CANTOPEN: "this user may not open it, or may not write to its directory",
    sqlite3.SQLITE_READONLY: "this user may not write to it or to its directory",
}


def not_copied(source: Path, target: Path, error: Exception) -> CommandError:
    """Return the error for a database that could not be copied to the place of `target`."""
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _FAULTS_OF_SOURCE:
        return CommandError(f"{source} is damaged: it cannot be read to its end.")
    return CommandError(f"{source} cannot be copied to {target.parent}: {reason_of(error)}.")


def reason_of(error: Exception) -> str:
    """Return in some words why a file cannot be used, for the end of a sentence."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        return _SQLITE_REASONS.get((code or 0) & 0xFF, str(error))
    if isinstance(error, OSError):
        return _FILE_REASONS.get(error.errno or 0, error.strerror or str(error))
    return str(error)
