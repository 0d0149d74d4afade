"""A small coverage-guided fuzzer: inputs that reach a new line of the watched modules are kept and changed further.

Used by the tests of parsers. It watches Python's own lines (sys.settrace), needs no compiled tool, and makes the same
choices again from the same seed, as far as the time it is given lets it come.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

MAX_INPUT_BYTES = 64 * 1024
MOST_CHANGES = 4


@dataclass
class Findings:
    """What a run has seen: how many inputs, how many of them were kept, and how many lines were reached."""

    inputs: int
    kept: int
    lines: int


class Fuzzer:
    """Feeds `check`, which raises when it sees a fault, with changed `seeds` and pieces of `words`."""

    def __init__(
        self,
        check: Callable[[bytes], None],
        watched: Sequence[ModuleType],
        seeds: Sequence[bytes],
        words: Sequence[bytes],
        chance: random.Random,
    ) -> None:
        self._check = check
        self._files = {module.__file__ for module in watched}
        self._corpus = list(seeds)
        self._words = words
        self._chance = chance
        self._reached: set[tuple[str, int, int]] = set()

    def run(self, seconds: float) -> Findings:
        """Try the seeds, then changed inputs until the time is up. What `check` raises is raised, with its input."""
        until = time.monotonic() + seconds
        given = len(self._corpus)
        inputs = 0
        for seed in self._corpus[:]:
            self._try(seed)
        while time.monotonic() < until:
            changed = self._changed(self._chance.choice(self._corpus))
            inputs += 1
            if self._try(changed):
                self._corpus.append(changed)
        return Findings(given + inputs, len(self._corpus) - given, len(self._reached))

    def _try(self, data: bytes) -> bool:
        """Check one input; whether it went where none was before."""
        before = len(self._reached)
        outer = sys.gettrace()  # coverage's, or a debugger's
        sys.settrace(self._enter)
        try:
            self._check(data)
        except Exception as error:
            error.add_note(f"the input, of {len(data)} bytes: {data[:2000]!r}")
            raise
        finally:
            sys.settrace(outer)
        return len(self._reached) > before

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        name, last = frame.f_code.co_filename, 0

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                self._reached.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    def _changed(self, data: bytes) -> bytes:
        for _ in range(self._chance.randint(1, MOST_CHANGES)):
            data = self._chance.choice((self._insert, self._remove, self._replace, self._repeat, self._cross))(data)
        return data[:MAX_INPUT_BYTES]

    def _span(self, data: bytes) -> tuple[int, int]:
        start = self._chance.randint(0, len(data))
        return start, min(len(data), start + self._chance.choice((1, 2, 8, 64)))

    def _insert(self, data: bytes) -> bytes:
        start, _ = self._span(data)
        return data[:start] + self._chance.choice(self._words) + data[start:]

    def _remove(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end:]

    def _replace(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return (
            data[:start]
            + self._chance.choice((self._chance.choice(self._words), self._chance.randbytes(1)))
            + data[end:]
        )

    def _repeat(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[start:end] * self._chance.choice((2, 3, 100)) + data[end:]

    def _cross(self, data: bytes) -> bytes:
        other = self._chance.choice(self._corpus)
        return data[: self._span(data)[0]] + other[self._span(other)[0] :]
