"""Tokens that the control plane makes: told apart by their beginning, and known to be damaged by their end."""

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from control_plane.core.tokens import PREFIXES, TokenKind, is_damaged, make_token

DIGITS = string.digits + string.ascii_letters
PREFIX = 4
LENGTH = PREFIX + 43 + 6
SAMPLES = {kind: make_token(kind) for kind in TokenKind}
kinds = pytest.mark.parametrize("kind", list(TokenKind))


@kinds
def test_a_token_is_its_kinds_prefix_and_letters_and_digits_of_one_length(kind: TokenKind) -> None:
    made = {make_token(kind) for _ in range(200)}
    assert len(made) == 200
    for token in made:
        assert re.fullmatch(r"id[aeh]_[0-9A-Za-z]{49}", token)
        assert token.startswith(PREFIXES[kind])
        assert not is_damaged(token)


def test_no_two_kinds_begin_alike() -> None:
    assert len({prefix[:PREFIX] for prefix in PREFIXES.values()}) == len(TokenKind)
    assert {len(prefix) for prefix in PREFIXES.values()} == {PREFIX}


@given(st.sampled_from(list(TokenKind)), st.integers(PREFIX, LENGTH - 1), st.characters(codec="utf-8"))
@example(TokenKind.API, LENGTH - 1, "\n")
@example(TokenKind.AGENT, PREFIX, "\x00")
def test_any_other_character_at_any_place_is_noticed(kind: TokenKind, place: int, character: str) -> None:
    token = SAMPLES[kind]
    changed = token[:place] + character + token[place + 1 :]
    assert is_damaged(changed) == (changed != token)


@kinds
def test_every_other_digit_at_every_place_is_noticed(kind: TokenKind) -> None:
    token = SAMPLES[kind]
    for place in range(PREFIX, LENGTH):
        for digit in DIGITS:
            changed = token[:place] + digit + token[place + 1 :]
            assert is_damaged(changed) == (changed != token)


@kinds
def test_a_kind_in_place_of_another_is_noticed(kind: TokenKind) -> None:
    for prefix in set(PREFIXES.values()) - {PREFIXES[kind]}:
        assert is_damaged(prefix + SAMPLES[kind][PREFIX:])


@kinds
def test_every_cut_and_every_addition_is_noticed(kind: TokenKind) -> None:
    token = SAMPLES[kind]
    for length in range(PREFIX, LENGTH):
        assert is_damaged(token[:length])
        assert is_damaged(token[:PREFIX] + token[PREFIX + LENGTH - length :])
    for added in (*DIGITS, " ", "\n", token):
        assert is_damaged(token + added)


@kinds
def test_two_neighbours_that_changed_places_are_noticed(kind: TokenKind) -> None:
    token = SAMPLES[kind]
    for place in range(PREFIX, LENGTH - 1):
        swapped = token[:place] + token[place + 1] + token[place] + token[place + 2 :]
        assert is_damaged(swapped) == (swapped != token)


@given(st.text(st.characters(codec=None, exclude_categories=())))
@example("")
@example("ida")
def test_what_does_not_begin_as_one_of_ours_is_not_called_damaged(text: str) -> None:
    if not text.startswith(tuple(PREFIXES.values())):
        assert not is_damaged(text)
