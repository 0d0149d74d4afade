"""Compose files in and out of base64, and the bound on their size.

Called where a file enters and where it is put into an agent's command. Size is checked before anything
is decoded; what goes to agents is strict base64 with padding, whatever came in.
"""

import base64
import binascii

from control_plane.core.errors import FieldProblem, InvalidInputError, TooLargeError

MAX_COMPOSE_BYTES = 256 * 1024
"""The largest Compose file, decoded. Hand-written ones are a few KiB; generated ones stay under 100."""

_MAX_ENCODED_LENGTH = 4 * -(-MAX_COMPOSE_BYTES // 3)
_LINE_BREAKS = {ord("\r"): None, ord("\n"): None}
_FIELD = "compose_file_base64"


def decode_base64(text: str) -> bytes:
    """Return the bytes of standard, padded base64, with or without line breaks.

    Raises TooLargeError over MAX_COMPOSE_BYTES decoded, InvalidInputError for anything else that
    the agents' strict decoder would not take.
    """
    # Line breaks at most double a sane encoding; a longer text is not even copied.
    if len(text) > 2 * _MAX_ENCODED_LENGTH:
        raise too_large()
    encoded = text.translate(_LINE_BREAKS) if "\n" in text or "\r" in text else text
    if len(encoded) > _MAX_ENCODED_LENGTH:
        raise too_large()
    if not encoded:
        raise _refused("is empty: send the Compose file, base64-encoded")
    try:
        source = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise _refused("is not standard base64 with padding: encode the file with `base64 FILE`") from None
    if len(source) > MAX_COMPOSE_BYTES:
        raise too_large()
    return source


def to_wire(source: bytes) -> str:
    """Return `source` as the strict base64 that agents decode: standard alphabet, padded, no line breaks."""
    return base64.b64encode(source).decode("ascii")


def too_large() -> TooLargeError:
    """Return the error for a Compose file over MAX_COMPOSE_BYTES."""
    return TooLargeError(
        f"The Compose file is larger than {MAX_COMPOSE_BYTES // 1024} KiB: "
        "split it into several projects or take large inline content out."
    )


def _refused(reason: str) -> InvalidInputError:
    return InvalidInputError(f"{_FIELD} {reason}.", [FieldProblem(_FIELD, reason)])
