"""The agent as one file that any Python from 3.11 on runs: a zip of our own installed files, for hosts without pip.

`routes_install` serves it and puts its SHA-256 into the installer. It holds `agent/`, the words of the wire, and the
Python files of `websockets` with its licence; the same files give the same bytes.
"""

import functools
import hashlib
import importlib.metadata
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN_FILES = ("control_plane/__init__.py", "control_plane/core/__init__.py", "control_plane/core/wire.py")
LIBRARY = "websockets"

_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("agent: Python 3.11 or later is needed, and this is %d.%d." % sys.version_info[:2])

from agent.__main__ import main

sys.exit(main())
"""
_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can hold: the bytes must not tell when they were made."""


@dataclass(frozen=True)
class AgentFile:
    """The file's bytes, and their SHA-256 in hexadecimal."""

    content: bytes
    sha256: str


@functools.cache
def agent_file() -> AgentFile:
    """Return the file, made once a process from what is installed beside it; takes some tenths of a second."""
    buffer = io.BytesIO(_SHEBANG)
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(_members()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    content = buffer.getvalue()
    return AgentFile(content, hashlib.sha256(content).hexdigest())


def _members() -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", _MAIN.encode()
    for path in [*(ROOT / "agent").glob("*.py"), *(ROOT / name for name in OWN_FILES)]:
        yield path.relative_to(ROOT).as_posix(), path.read_bytes()
    for file in importlib.metadata.files(LIBRARY) or ():
        # Its one compiled module is left out: it is for this machine's Python, and it is optional.
        if (file.parts[0] == LIBRARY and file.suffix == ".py") or "LICENSE" in file.name:
            yield file.as_posix(), file.read_binary()
