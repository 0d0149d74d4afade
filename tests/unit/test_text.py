"""Agents' text: nothing that forges a log line or drives a terminal gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.text import clean_header, clean_text

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain\n\tline", "plain\n\tline"),
        ("red \x1b[31mtext\x1b[0m", "red [31mtext[0m"),
        ("a\r\nb\rc", "a\nbc"),
        ("nul\x00bell\x07del\x7f", "nulbelldel"),
        ("c1 \x9b31m \x85", "c1 31m "),
        ("lone \ud83d surrogate", "lone \ufffd surrogate"),
        ("höhe 🚀", "höhe 🚀"),
    ],
)
def test_control_characters_go_and_everything_else_stays(text: str, clean: str) -> None:
    assert clean_text(text) == clean


@given(ANY_TEXT)
def test_clean_text_can_be_stored_and_has_no_controls_but_newline_and_tab(text: str) -> None:
    clean = clean_text(text)
    clean.encode("utf-8")
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in clean)
    assert clean_text(clean) == clean


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_text_with_nothing_to_strip_is_the_same_object(text: str) -> None:
    assert clean_text(text) is text


@given(ANY_TEXT, st.integers(0, 40))
def test_a_header_is_one_bounded_line(value: str, limit: int) -> None:
    clean = clean_header(value, limit)
    clean.encode("utf-8")
    assert len(clean) <= limit
    assert clean == clean.strip()
    assert len(clean.splitlines()) <= 1


def test_a_header_cannot_start_a_second_log_line() -> None:
    assert clean_header(" host\r\nX-Evil: 1\u2028\x1b[2J ", 40) == "hostX-Evil: 1[2J"
    assert clean_header("h" * 10**6, 253) == "h" * 253
