"""Tokens: whom a checker lets in, and what counts as a Bearer header."""

import hashlib
import secrets

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from control_plane.core.tokens import TokenChecker, bearer_token

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
TOKEN = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)


@given(ANY_TEXT.filter(bool))
@example("\ud800")
@example("\x00")
def test_a_checker_lets_in_the_token_it_was_made_of(token: str) -> None:
    assert TokenChecker.of_plain(token).matches(token)


@given(ANY_TEXT)
@example("\udcff")
@example("tökén")
def test_a_checker_turns_away_all_other_text_without_raising(presented: str) -> None:
    assert not TokenChecker.of_plain(secrets.token_urlsafe(32)).matches(presented)


@pytest.mark.parametrize(
    "near", ["", "s3cret-toke", "s3cret-tokens", "S3CRET-TOKEN", " s3cret-token", "s3cret-token\n"]
)
def test_a_nearly_right_token_is_turned_away(near: str) -> None:
    assert not TokenChecker.of_plain("s3cret-token").matches(near)


def test_a_checker_made_of_a_digest_lets_in_its_token_and_not_the_digest() -> None:
    digest = hashlib.sha256(b"s3cret-token").hexdigest()
    checker = TokenChecker.of_digest(digest)
    assert checker.matches("s3cret-token")
    assert not checker.matches(digest)


def test_an_empty_token_makes_no_checker() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        TokenChecker.of_plain("")


@pytest.mark.parametrize("digest", ["", "00", "zz" * 32, "00" * 31])
def test_what_is_not_a_sha256_digest_makes_no_checker(digest: str) -> None:
    with pytest.raises(ValueError, match=r"digest|hexadecimal"):
        TokenChecker.of_digest(digest)


def test_a_checker_does_not_show_its_digest() -> None:
    digest = hashlib.sha256(b"s3cret-token").digest()
    assert repr(digest) not in repr(TokenChecker(digest))


@given(TOKEN, st.sampled_from(["Bearer", "bearer", "BEARER", "bEaReR"]), st.integers(1, 3))
def test_the_token_of_a_bearer_header_is_found_whatever_the_case_of_the_scheme(
    token: str, scheme: str, spaces: int
) -> None:
    assert bearer_token(scheme + " " * spaces + token) == token


@pytest.mark.parametrize(
    "header",
    [None, "", " ", "Bearer", "Bearer ", "Bearer  ", "Basic dXNlcg==", "Bearerabc", "abc", "Bearer a b", "Bearer a\tb"],
)
def test_a_header_without_exactly_one_bearer_token_has_none(header: str | None) -> None:
    assert bearer_token(header) is None


@given(ANY_TEXT)
def test_any_header_is_read_without_raising(header: str) -> None:
    token = bearer_token(header)
    assert token is None or (token in header and " " not in token)
