"""Unquoted scalars mean what the Compose binary reads, not what PyYAML's YAML 1.1 would."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.compose.interpolation import BadInterpolationError, expand, is_interpolated
from control_plane.core.compose.scalars import resolve_plain

READ_BY_COMPOSE = {
    "on": "on", "no": "no", "y": "y", "tRue": "tRue", "22:30": "22:30", "1:30:20": "1:30:20",
    "2020-01-01": "2020-01-01",
    "true": True, "TRUE": True, "False": False, "": None, "~": None, "null": None, "NULL": None, "nULL": "nULL",
    "0777": 511, "0o17": 15, "0o8": "0o8", "08": 8, "1_000": 1000, "1_": 1, "_1": "_1", "0x1F": 31, "+0x1F": 31,
    "-0x10": -16, "0b11": 3, "0b12": "0b12", "+5": 5, "1e3": 1000, "1e": "1e", ".5": 0.5, "1.": 1, "1e999": "1e999",
    "18446744073709551615": 18446744073709551615, "99999999999999999999999": 1e23, "-": "-", ".": ".", "+": "+",
}  # fmt: skip
"""Taken from what `docker-compose config` prints for `environment: {X: …}`."""


@pytest.mark.parametrize(("text", "value"), READ_BY_COMPOSE.items(), ids=map(repr, READ_BY_COMPOSE))
def test_a_plain_scalar_is_read_as_compose_reads_it(text: str, value: object) -> None:
    read = resolve_plain(text)
    assert read == value
    assert isinstance(read, bool) == isinstance(value, bool)


@given(st.text("0123456789+-._exobEaflnuNI~:", max_size=12))
def test_any_text_resolves_and_to_text_only_as_itself(text: str) -> None:
    read = resolve_plain(text)
    assert not isinstance(read, str) or read == text


@given(st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back(number: float) -> None:
    assert resolve_plain(str(number)) == number


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", ".NaN"])
def test_numbers_that_compose_refuses_are_marked_as_not_finite(text: str) -> None:
    read = resolve_plain(text)
    assert isinstance(read, float)
    assert not math.isfinite(read)


def test_the_reader_differs_from_pyyaml_where_it_must() -> None:
    assert yaml.safe_load("22:30") != resolve_plain("22:30")


@pytest.mark.parametrize(
    ("text", "result", "unset", "required"),
    [
        ("a$b-${c}", "a-", ["b", "c"], []),
        ("$$a $1 5$ $é }", "$a $1 5$ $é }", [], []),
        ("${A:-x}${B-}${C+y}", "x", [], []),
        ("${A:-${B:-c}}", "c", [], []),
        ("${A:-$B}", "", ["B"], []),
        ("${A:-$$b}", "$b", [], []),
        ("${A:-{a}}", "{a}", [], []),
        ("${A?}${B:?say why}", "", [], ["A", "B"]),
        ("${A:+${}}", "", [], []),
        ("${KNOWN:-x}${KNOWN}${KNOWN:+$B}", "vv", ["B"], []),
    ],
)
def test_variables_are_read_as_compose_reads_them(
    text: str, result: str, unset: list[str], required: list[str]
) -> None:
    expansion = expand(text, {"KNOWN": "v"})
    assert (expansion.text, expansion.unset, expansion.required) == (result, unset, required)


@pytest.mark.parametrize(
    "text", ["${}", "${A", "${1}", "${A.B}", "${ A}", "${A:}", "${A:-b\nc}", "${A:-${}}", "${" * 99]
)
def test_malformed_variables_are_refused_as_compose_refuses_them(text: str) -> None:
    with pytest.raises(BadInterpolationError):
        expand(text)


@given(st.text("$ {}:-+?Aé\n", max_size=30))
def test_text_without_variables_expands_to_itself_but_for_double_dollars(text: str) -> None:
    try:
        expansion = expand(text)
    except BadInterpolationError:
        assert is_interpolated(text)
        return
    if not is_interpolated(text):
        assert expansion.text == text.replace("$$", "$")
