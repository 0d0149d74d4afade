"""What the demo shows: numbered steps, each with its outcome, how long it took and a note.

Used by demo.py only. Colour and the line of a step still under way appear on a terminal only; where the
terminal cannot show a tick, words stand in for it.
"""

import os
import sys
import time
from enum import Enum
from typing import TextIO

TITLE_WIDTH = 38


class Outcome(Enum):
    """How a step ended: its tick, the word where a tick cannot be shown, and its ANSI colour."""

    DONE = ("✔", "ok", "32")
    SKIPPED = ("○", "--", "33")
    FAILED = ("✘", "FAILED", "31")


class Console:
    """Writes to `out`, one line a step. `began` must be called before `ended`."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._colour = self._terminal and "NO_COLOR" not in os.environ  # https://no-color.org
        self._ticks = (out.encoding or "").lower().startswith("utf")
        self._step = 0
        self._title = ""
        self._since = 0.0

    def say(self, text: str = "") -> None:
        """Write lines of their own."""
        encoding = self._out.encoding or "ascii"
        self._out.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        self._out.flush()

    def began(self, title: str) -> None:
        """Announce the next step."""
        self._step += 1
        self._title, self._since = title, time.monotonic()
        if self._terminal:
            self._out.write(f"{self._head()} …")
            self._out.flush()

    def ended(self, outcome: Outcome, note: str) -> None:
        """Say how the step that began last has ended. Further lines of `note` go below it, indented."""
        if self._terminal:
            self._out.write("\r\x1b[K")
        first, *rest = note.splitlines() or [""]
        tick, word, colour = outcome.value
        mark = tick if self._ticks else word
        if self._colour:
            mark = f"\x1b[{colour}m{mark}\x1b[0m"
        self.say(f"{self._head()} {mark} {first} ({time.monotonic() - self._since:.1f} s)")
        self.quote("\n".join(rest))

    def quote(self, text: str) -> None:
        """Show somebody else's output, indented."""
        for line in text.splitlines():
            self.say(f"      | {line}".rstrip())

    def _head(self) -> str:
        return f"{self._step:>3}. {self._title:<{TITLE_WIDTH}}"
