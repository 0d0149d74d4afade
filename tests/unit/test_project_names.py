"""Project names: what agents take, what they fold to, and that no name is a path."""

import re
import string
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.compose import check_project_name, folded_name, names
from control_plane.core.errors import InvalidInputError

ALPHABET = string.ascii_letters + string.digits + "_-"

TRAPS = [
    "", "web\n", "web\r\n", "\nweb", "web\x00", "..", ".", "../etc", "a/b", "a\\b", "~", "web ", " web", "\uff57eb",
    "wéb", "w" * 64, "-", "_", "-_-", "web;ls", "$(id)", "web.", "a:b", "web\u2028", "\u0130",
]  # fmt: skip


@pytest.mark.promise("traversal")
@pytest.mark.parametrize("name", TRAPS)
def test_a_name_that_could_be_something_else_is_refused_naming_the_field(name: str) -> None:
    check_trap(name)


@pytest.mark.control("traversal")
def test_a_match_that_lets_a_newline_pass_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_NAME", SimpleNamespace(fullmatch=re.compile(r"^[a-zA-Z0-9_-]+$").match))
    with pytest.raises(pytest.fail.Exception):
        check_trap("web\n")


def check_trap(name: str) -> None:
    """Assert that this name is refused."""
    with pytest.raises(InvalidInputError) as refused:
        check_project_name(name)
    assert [problem.field for problem in refused.value.fields] == ["project_name"]
    assert refused.value.detail.startswith("project_name ")


@pytest.mark.parametrize("name", ["web", "Web", "_web", "-web", "0", "a" * 63, "my_shop-2"])
def test_an_ordinary_name_is_taken_as_it_is(name: str) -> None:
    assert check_project_name(name) == name


@pytest.mark.promise("traversal")
@given(st.text(max_size=70))
def test_what_passes_is_within_the_alphabet_and_folds_to_a_name_of_compose(name: str) -> None:
    try:
        check_project_name(name)
    except InvalidInputError:
        return
    assert set(name) <= set(ALPHABET)
    assert 1 <= len(name) <= 63
    assert folded_name(name)[0].isalnum()


@pytest.mark.promise("traversal")
@given(st.text(ALPHABET, min_size=1, max_size=63).filter(lambda name: name.strip("_-")))
def test_folding_is_what_compose_does_and_doing_it_twice_changes_nothing(name: str) -> None:
    assert check_project_name(name) == name
    assert folded_name(name) == name.lower().lstrip("_-")
    assert folded_name(folded_name(name)) == folded_name(name)


@pytest.mark.promise("traversal")
@pytest.mark.parametrize("name", ["Web", "web", "_web", "-WEB", "__-wEb"])
def test_names_that_share_containers_fold_together(name: str) -> None:
    assert folded_name(name) == "web"
