"""What the server and a judging process say to each other: one request and one verdict a file, in order.

Both directions are frames of a length and that many bytes. Verdicts are JSON, so that a process in which a
hostile file has taken over can make the server believe a verdict and nothing more.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict

from control_plane.core.compose import ComposeFile, passed_file
from control_plane.core.errors import FieldProblem, InvalidComposeFileError

_LENGTHS = struct.Struct("!IH")
_LENGTH = struct.Struct("!I")
FINE = _LENGTH.pack(0)
"""The verdict on most files, which is nothing to say; and a process's first word, when it is ready to judge."""


def request(source: bytes, project_name: str) -> bytes:
    """Return the frame that asks for a verdict. `project_name` is a checked one: at most 63 characters."""
    name = project_name.encode()
    return _LENGTHS.pack(len(source), len(name)) + name + source


def take_requests(buffer: bytearray) -> Iterator[tuple[bytes, str]]:
    """Take the complete requests off `buffer`, each as a file and its project's name."""
    while len(buffer) >= _LENGTHS.size:
        source_length, name_length = _LENGTHS.unpack_from(buffer)
        start = _LENGTHS.size + name_length
        if len(buffer) < start + source_length:
            return
        name = buffer[_LENGTHS.size : start].decode()
        source = bytes(buffer[start : start + source_length])
        del buffer[: start + source_length]
        yield source, name


def passed(file: ComposeFile) -> bytes:
    """Return the frame that says that a file may be deployed."""
    if not file.warnings:
        return FINE
    return _framed({"warnings": file.warnings})


def refused(error: InvalidComposeFileError) -> bytes:
    """Return the frame that says why a file may not be deployed."""
    return _framed({"error": error.detail, "problems": [asdict(problem) for problem in error.fields]})


def crashed(error: Exception) -> bytes:
    """Return the frame that says that judging failed, which is a bug of this program."""
    return _framed({"crash": f"{type(error).__name__}: {error}"})


def take_verdicts(buffer: bytearray) -> Iterator[bytes]:
    """Take the complete verdicts off `buffer`, to be read by `verdict_of`."""
    while len(buffer) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(buffer)
        if len(buffer) < _LENGTH.size + length:
            return
        yield bytes(buffer[_LENGTH.size : _LENGTH.size + length])
        del buffer[: _LENGTH.size + length]


def verdict_of(text: bytes, source: bytes) -> ComposeFile | Exception:
    """Return the file, or what is to be raised for it."""
    if not text:
        return passed_file(source)
    said = json.loads(text)
    if "warnings" in said:
        return passed_file(source, tuple(said["warnings"]))
    if "error" in said:
        return InvalidComposeFileError(said["error"], [FieldProblem(**problem) for problem in said["problems"]])
    return RuntimeError(f"A Compose file could not be judged: {said['crash']}")


def _framed(verdict: dict[str, object]) -> bytes:
    text = json.dumps(verdict).encode()
    return _LENGTH.pack(len(text)) + text
