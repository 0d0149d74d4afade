"""Base64 in and out: line breaks are fine, anything else that agents would not decode is not."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.compose import MAX_COMPOSE_BYTES, decode_base64, to_wire
from control_plane.core.errors import InvalidInputError, TooLargeError


@given(st.binary(min_size=1, max_size=2000))
def test_what_goes_to_agents_comes_back_the_same(source: bytes) -> None:
    assert decode_base64(to_wire(source)) == source
    assert to_wire(source).encode() == base64.standard_b64encode(source)


@given(st.binary(min_size=1, max_size=2000), st.sampled_from(["\n", "\r\n"]), st.integers(1, 80))
def test_line_breaks_are_no_matter(source: bytes, line_break: str, width: int) -> None:
    text = to_wire(source)
    lines = [text[start : start + width] for start in range(0, len(text), width)]
    assert decode_base64(line_break.join(lines) + line_break) == source


@pytest.mark.parametrize(
    "text", ["", "\n", "YQ", "YQ=", "YQ===", "YQ==YQ==", "Y Q==", "-_-_", "YQ==\x00", "YQ==;", "=", "é", "YWI=YQ=="]
)
def test_anything_but_standard_padded_base64_is_refused_naming_the_field(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        decode_base64(text)
    assert [problem.field for problem in refused.value.fields] == ["compose_file_base64"]


@given(st.text(max_size=50))
def test_arbitrary_text_decodes_or_is_refused(text: str) -> None:
    try:
        source = decode_base64(text)
    except InvalidInputError:
        return
    assert decode_base64(to_wire(source)) == source


def test_the_largest_file_is_taken_and_one_byte_more_is_not() -> None:
    assert len(decode_base64(to_wire(b"x" * MAX_COMPOSE_BYTES))) == MAX_COMPOSE_BYTES
    for size in (MAX_COMPOSE_BYTES + 1, 10 * MAX_COMPOSE_BYTES):
        with pytest.raises(TooLargeError):
            decode_base64(to_wire(b"x" * size))
