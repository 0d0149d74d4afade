"""Who may do what, as pure rules: roles one above the other, patterns of projects, labels."""

import re
import sqlite3
from fnmatch import fnmatchcase
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from control_plane.core.access import (
    DEFAULT_REACH,
    Actor,
    Reach,
    Role,
    is_label_part,
    is_project_pattern,
)
from control_plane.core.errors import ForbiddenError
from control_plane.store.reaching import limits
from control_plane.store.tables import placement_table

NAME = st.text("abAB01_-", min_size=1, max_size=8)
PATTERN = st.text("abAB01_-*?", min_size=1, max_size=8)


def actor(role: Role = Role.VIEWER, reach: Reach = DEFAULT_REACH) -> Actor:
    return Actor("ci", role, reach)


def test_a_role_may_what_it_is_asked_for_and_all_that_comes_before_it() -> None:
    order = ["viewer", "deployer", "operator", "admin", "root"]
    for has, needed in product(Role, Role):
        assert has.may(needed) == (order.index(has.value) >= order.index(needed.value))


def test_who_is_refused_is_told_its_role_and_the_one_it_needs() -> None:
    actor(Role.OPERATOR).require(Role.OPERATOR)
    with pytest.raises(ForbiddenError) as refused:
        actor(Role.DEPLOYER).require(Role.ADMIN)
    assert "'ci' has the role deployer" in refused.value.detail
    assert "needs admin" in refused.value.detail


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        ("shop", ["shop", "SHOP"], ["shop-1", "ashop", "sho", ""]),
        ("shop-*", ["shop-", "shop-1", "Shop-a_b"], ["shop", "shop_1", "ashop-1"]),
        ("*", ["a", "_", "Z-9"], []),
        ("w?b", ["web", "w_b", "W-B"], ["wb", "weeb", "web1"]),
        ("a_b", ["a_b"], ["axb", "a-b"]),
        ("*-prod", ["a-prod", "-prod"], ["a-prod-1", "prod"]),
    ],
)
def test_a_pattern_stands_for_whole_names_in_any_case(pattern: str, fits: list[str], fails: list[str]) -> None:
    reach = Reach(1, (pattern,))
    assert [name for name in fits + fails if reach.has_project(name)] == fits


def test_of_several_patterns_one_is_enough_and_none_means_all() -> None:
    reach = Reach(1, ("shop-*", "web"))
    assert [reach.has_project(name) for name in ("shop-1", "web", "blog")] == [True, True, False]
    assert Reach(1).has_project("blog")
    assert not Reach(1).is_limited
    assert Reach(1, ("*",)).is_limited
    assert Reach(1, labels=(("env", "prod"),)).is_limited


@given(NAME, st.lists(PATTERN, min_size=1, max_size=3))
@example("a_b", ["a?b"])
@example("axb", ["a_b"])
@example("a-b", ["a_b"])
def test_the_database_and_the_program_agree_on_every_pattern(name: str, patterns: list[str]) -> None:
    reach = Reach(1, tuple(patterns))
    query = select(placement_table.c.project_name).where(*limits(placement_table, reach))
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE TABLE placement (project_name, agent_id)")
        db.execute("INSERT INTO placement VALUES (?, 1)", (name,))
        compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
        found = db.execute(str(compiled)).fetchall()
    db.close()
    assert bool(found) == reach.has_project(name)
    assert reach.has_project(name) == any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


@given(st.text(max_size=70))
@example("a\n")
@example("a%b")
@example("[a]")
def test_what_is_a_pattern_is_within_the_alphabet_of_names_and_wildcards(text: str) -> None:
    assert is_project_pattern(text) == bool(re.fullmatch(r"[A-Za-z0-9_*?-]{1,63}\Z", text))


@pytest.mark.parametrize("text", ["a", "A1", "env", "example.com/team", "a" * 63, "a_b-c.d/e", "0"])
def test_an_ordinary_part_of_a_label_is_taken(text: str) -> None:
    assert is_label_part(text)


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", ".a", "a/", "a b", "a=b", "a,b", "a" * 64, "a\n", "\u00e9", "a\x00", "*"]
)
def test_what_could_be_misread_is_no_part_of_a_label(text: str) -> None:
    assert not is_label_part(text)


def test_a_project_out_of_reach_is_refused_with_the_tokens_own_patterns() -> None:
    limited = actor(reach=Reach(1, ("shop-*", "web")))
    limited.require_project("shop-1")
    with pytest.raises(ForbiddenError) as refused:
        limited.require_project("blog")
    assert "shop-*, web" in refused.value.detail


def test_who_is_limited_to_projects_may_not_change_agents() -> None:
    actor(reach=Reach(1, labels=(("env", "prod"),))).require_every_project()
    with pytest.raises(ForbiddenError, match="for all projects"):
        actor(reach=Reach(1, ("*",))).require_every_project()


def test_a_reach_within_another_organisation_keeps_its_limits() -> None:
    reach = Reach(1, ("a",), (("k", "v"),))
    assert reach.within_organization(2) == Reach(2, ("a",), (("k", "v"),))


def test_the_mark_of_a_reach_tells_limits_apart_and_not_their_order() -> None:
    reaches = [
        Reach(1), Reach(1, ("a",)), Reach(1, ("a", "b")), Reach(1, ("ab",)), Reach(1, ("a*",)),
        Reach(1, labels=(("a", "b"),)), Reach(1, labels=(("b", "a"),)), Reach(1, ("a",), (("a", "b"),)),
    ]  # fmt: skip
    assert len({reach.mark for reach in reaches}) == len(reaches)
    assert Reach(1).mark == ""
    assert Reach(1, ("a", "b")).mark == Reach(1, ("b", "a")).mark
