"""Compose files and project names as they come in: decoded, bounded, read, checked and fingerprinted.

Called by operations, off the event loop. Everything here is pure and thread-safe; a file that passes is
one that Compose itself accepts, as far as can be told without the host.
"""

from control_plane.core.compose.encoding import MAX_COMPOSE_BYTES, decode_base64, to_wire
from control_plane.core.compose.names import MAX_NAME_LENGTH, check_project_name, folded_name
from control_plane.core.compose.read import ComposeFile, passed_file, read_compose

__all__ = [
    "MAX_COMPOSE_BYTES",
    "MAX_NAME_LENGTH",
    "ComposeFile",
    "check_project_name",
    "decode_base64",
    "folded_name",
    "passed_file",
    "read_compose",
    "to_wire",
]
