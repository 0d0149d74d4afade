"""Skim: the plain members at the start of a JSON object, read without building what is nested behind them.

Used by `core.protocol` for answers whose `data` is too large or too deep to be read: agents write it last, so
what matters stands before it. Costs little whatever comes: building 16 MiB of small lists takes seconds.
"""

import json
import re

MAX_MEMBERS = 32
"""Read at most; a message of the wire has six."""

_OPEN = re.compile(r"\s*\{\s*")
_KEY = re.compile(r'"([^"\\\x00-\x1f]{1,64})"\s*:\s*')
_NEXT = re.compile(r"\s*,\s*")
_DECODER = json.JSONDecoder(parse_int=lambda _: 0, parse_float=lambda _: 0, parse_constant=lambda _: None)


def skim(text: str) -> tuple[dict[str, object], int]:
    """Return the members up to the first nested or unreadable one, and where in `text` that one's value begins.

    Any number comes as 0. The position is behind the last member when all were read. Never raises: what is no
    object has no members.
    """
    members: dict[str, object] = {}
    opened = _OPEN.match(text)
    at = opened.end() if opened else 0
    for _ in range(MAX_MEMBERS if opened else 0):
        if not (key := _KEY.match(text, at)):
            break
        at = key.end()
        if text[at : at + 1] in ("", "[", "{"):
            break
        try:
            members[key[1]], at = _DECODER.raw_decode(text, at)
        except ValueError:
            break
        if not (more := _NEXT.match(text, at)):
            break
        at = more.end()
    return members, at
