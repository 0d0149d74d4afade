"""The audit's entries: what they say is plain and short, and hashed as documented whatever it is."""

import json
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.audit import MAX_OBJECT_CHARACTERS, hash_of
from tests.support.audit import entry

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.lists(st.one_of(TEXT, st.integers(-(2**63), 2**63 - 1), st.none()))


@given(VALUES)
def test_a_hash_is_that_of_the_standard_librarys_json(values: list[str | int | None]) -> None:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    assert hash_of(values) == sha256(text.encode()).hexdigest()


@given(st.text())
def test_whatever_a_caller_sends_is_kept_in_one_short_line_that_can_be_hashed(text: str) -> None:
    about = entry(about=f"project {text}").object
    assert len(about) <= MAX_OBJECT_CHARACTERS
    assert len(about.splitlines()) == 1
    assert hash_of([about])
