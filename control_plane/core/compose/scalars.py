"""What an unquoted YAML scalar means to Compose: its own reader's rules, not PyYAML's YAML 1.1.

Called for every plain scalar of a Compose file. `on`, `yes` and `22:30` are text; `0777` is a number.
The rules are those of Go's yaml library, which the Compose binary uses; dates stay text.
"""

import math
import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WORD_STARTS = frozenset(word[0] for word in _WORDS)
_NUMBER_STARTS = frozenset("0123456789+-.")
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)"
    r"|(?P<dec>0|[1-9][0-9]*))"
)
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_NUMBER_LENGTH = 400
"""Longer digits are text: no number that Compose uses has them, and reading them takes quadratic time."""


def resolve_plain(text: str) -> Scalar:
    """Return the value of an unquoted scalar. Infinities and NaN come back as such floats."""
    if not text:
        return None
    first = text[0]
    if first in _WORD_STARTS:
        return _WORDS.get(text, text)
    if first in _NUMBER_STARTS and len(text) <= _MAX_NUMBER_LENGTH:
        return _number(text)
    return text


def _number(text: str) -> Scalar:
    digits = text.replace("_", "") if "_" in text else text
    if match := _INTEGER.fullmatch(digits):
        base = match.lastgroup or "dec"
        number = int(match["sign"] + match[base], _BASES[base])
        # Beyond 64 bits Go reads a float.
        return number if -(2**63) <= number < 2**64 else float(number) if abs(number) < 10**300 else text
    if _FLOAT.fullmatch(digits):
        value = float(digits)
        return value if math.isfinite(value) else text
    return float(text.replace(".", "", 1)) if _NOT_FINITE.fullmatch(text) else text
