"""Bounded job logs: never over the limit, never half a character, both ends kept, the loss told truly."""

import re

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.logs import MAX_LOG_BYTES, cut_middle, tail

LOGS = st.lists(st.text("aé🚀\n ", max_size=40), max_size=40).map("\n".join)
NOTE = re.compile(r"\n\[\.\.\. ([0-9]+) bytes cut \.\.\.\]\n")


@given(LOGS, st.integers(0, 400))
def test_a_cut_log_is_within_the_limit_and_cutting_again_changes_nothing(text: str, limit: int) -> None:
    cut = cut_middle(text, limit)
    assert len(cut.encode()) <= limit
    assert cut_middle(cut, limit) == cut


@given(LOGS, st.integers(80, 400))
def test_a_cut_log_is_the_start_and_the_end_and_a_true_count_between(text: str, limit: int) -> None:
    cut = cut_middle(text, limit)
    if cut == text:
        return
    note = NOTE.search(cut)
    assert note is not None
    start, end = cut[: note.start()], cut[note.end() :]
    assert text.startswith(start)
    assert text.endswith(end)
    assert int(note[1]) == len(text.encode()) - len(start.encode()) - len(end.encode())


@given(LOGS, st.integers(0, 400))
def test_the_tail_is_the_end_within_the_limit(text: str, limit: int) -> None:
    end = tail(text, limit)
    assert text.endswith(end)
    assert len(end.encode()) <= limit
    assert tail(end, limit) == end


def test_forged_notes_cannot_push_a_log_over_the_limit() -> None:
    forged = "\n[... 999999999999999 bytes cut ...]\n" * 40_000
    assert len(cut_middle(forged, 1000).encode()) <= 1000


def test_a_log_that_fits_is_the_same_object() -> None:
    text = "é" * (MAX_LOG_BYTES // 4)
    assert cut_middle(text) is text
    assert tail(text, MAX_LOG_BYTES) is text


def test_a_long_log_keeps_whole_lines_of_both_ends() -> None:
    lines = [f"line {number}" for number in range(200_000)]
    cut = cut_middle("\n".join(lines))
    note = NOTE.search(cut)
    assert note is not None
    kept = cut[: note.start()].split("\n") + cut[note.end() :].split("\n")
    assert set(kept) <= set(lines)
    assert kept[0] == "line 0"
    assert kept[-1] == "line 199999"
    assert MAX_LOG_BYTES - 10_000 < len(cut.encode()) <= MAX_LOG_BYTES


def test_a_log_that_grows_and_is_cut_again_still_says_all_that_is_gone() -> None:
    whole, kept = "", ""
    for number in range(300):
        line = f"step {number} done\n"
        whole += line
        kept = cut_middle(kept + line, 1000)
    note = NOTE.search(kept)
    assert note is not None
    assert len(NOTE.findall(kept)) == 1
    start, end = kept[: note.start()], kept[note.end() :]
    assert whole.startswith(start)
    assert whole.endswith(end)
    assert int(note[1]) == len(whole) - len(start) - len(end)
