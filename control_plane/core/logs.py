"""Bounding of job logs: the middle is cut with a note, or only the end is kept.

Called before logs are stored. The result never exceeds the limit in UTF-8 bytes, never splits a
character, and cutting again changes nothing.
"""

import re

MAX_LOG_BYTES = 1024 * 1024
"""The most that is kept of one job's log."""

_NOTE = "\n[... {} bytes cut ...]\n"
_NOTE_RE = re.compile(rb"\n\[\.\.\. ([0-9]{1,15}) bytes cut \.\.\.\]\n")
_MAX_EARLIER = 10**15
"""The most that earlier cuts may claim: logs can forge notes, and the note's length must stay bounded."""
_NEAR_BYTES = 4096
"""How far a cut may move to fall on a line border; further would lose too much of a log of long lines."""


def cut_middle(text: str, limit_bytes: int = MAX_LOG_BYTES) -> str:
    """Return `text` in at most `limit_bytes` of UTF-8: its first and last half, a note in between.

    The note says how many bytes are gone, those of an earlier cut included when they go too. Cuts fall
    on line borders where one is near. A limit too small for the note keeps the start alone.
    """
    if _fits(text, limit_bytes):
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= limit_bytes:
        return data.decode()
    room = limit_bytes - len(_NOTE.format(len(data) + _MAX_EARLIER))
    if room <= 0:
        return _decode_start(data[: max(limit_bytes, 0)])
    head_end = _line_end_before(data, room // 2)
    tail_start = _line_start_after(data, len(data) - (room - room // 2))
    head, tail_part = _decode_start(data[:head_end]), _decode_end(data[tail_start:])
    kept = len(head.encode()) + len(tail_part.encode())
    gone = data[len(head.encode()) : len(data) - len(tail_part.encode())]
    earlier = sum(int(found) - len(_NOTE.format(int(found))) for found in _NOTE_RE.findall(gone))
    return head + _NOTE.format(len(data) - kept + min(max(earlier, 0), _MAX_EARLIER)) + tail_part


def tail(text: str, limit_bytes: int) -> str:
    """Return the end of `text` in at most `limit_bytes` of UTF-8, from a line's start where one is near."""
    if _fits(text, limit_bytes):
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= limit_bytes:
        return data.decode()
    return _decode_end(data[_line_start_after(data, len(data) - max(limit_bytes, 0)) :])


def _fits(text: str, limit_bytes: int) -> bool:
    # No character takes more than four bytes, so short text needs no encoding to be measured.
    return len(text) * 4 <= limit_bytes or (text.isascii() and len(text) <= limit_bytes)


def _line_end_before(data: bytes, end: int) -> int:
    border = data.rfind(b"\n", max(end - _NEAR_BYTES, end // 2), end)
    return end if border < 0 else border


def _line_start_after(data: bytes, start: int) -> int:
    border = data.find(b"\n", max(start - 1, 0), min(start + _NEAR_BYTES, (start + len(data)) // 2))
    return start if border < 0 else border + 1


def _decode_start(data: bytes) -> str:
    # The only bytes that cannot decode are those of a character cut in two at the end.
    return data.decode("utf-8", "ignore")


def _decode_end(data: bytes) -> str:
    return data.decode("utf-8", "ignore")
