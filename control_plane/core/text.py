"""Text from agents, made safe to keep, log and show.

Called where agents' logs, errors and handshake headers enter. What leaves here has no control character
but newline and tab (no terminal escape, no forged log line) and is always valid Unicode.
"""

import re

_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Return `text` without C0 and C1 control characters but newline and tab.

    CR LF becomes LF, lone surrogates become U+FFFD. Text with nothing to strip is returned as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    if not _HARMFUL.search(text):
        return text
    text = _SURROGATE.sub("\ufffd", text.replace("\r\n", "\n"))
    return _HARMFUL.sub("", text)


def clean_header(value: str, max_length: int) -> str:
    """Return a header's value on one line: control characters and line separators gone, ends stripped.

    At most `max_length` characters are kept.
    """
    # Stripping before the cut would read all of a hostile header; this reads what can matter of it.
    value = value[: 4 * max_length]
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", value)).strip()[:max_length].rstrip()
