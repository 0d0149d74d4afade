"""The transition tables: closed, without a way out of an end, and read alike in both directions."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.protocol import ResponseStatus
from control_plane.core.states import (
    ACTIVE_JOB_STATUSES,
    DEPLOYMENT_MOVES,
    JOB_MOVES,
    TERMINAL_JOB_STATUSES,
    DeploymentStatus,
    JobStatus,
    can_move,
    job_status_for,
    sources_of,
)

TABLES: list[tuple[Mapping[Any, frozenset[Any]], type[StrEnum]]] = [
    (JOB_MOVES, JobStatus),
    (DEPLOYMENT_MOVES, DeploymentStatus),
]
MOVES = [(moves, current, target) for moves, statuses in TABLES for current in statuses for target in statuses]


@pytest.mark.parametrize(("moves", "statuses"), TABLES)
def test_every_status_has_a_row_and_every_move_leads_to_a_status(
    moves: Mapping[Any, frozenset[Any]], statuses: type[StrEnum]
) -> None:
    assert set(moves) == set(statuses)
    assert frozenset().union(*moves.values()) <= set(statuses)


@pytest.mark.parametrize(("moves", "current", "target"), MOVES)
def test_both_ways_of_reading_a_table_agree(moves: Mapping[Any, frozenset[Any]], current: Any, target: Any) -> None:
    assert can_move(moves, current, target) == (current in sources_of(moves, target))


@pytest.mark.parametrize(("moves", "statuses"), TABLES)
def test_nothing_ever_comes_back_to_where_it_was(moves: Mapping[Any, frozenset[Any]], statuses: type[StrEnum]) -> None:
    for start in statuses:
        reached: set[Any] = set()
        frontier = set(moves[start])
        while frontier:
            reached |= frontier
            frontier = set().union(*(moves[status] for status in frontier)) - reached
        assert start not in reached


@given(st.lists(st.sampled_from(JobStatus), max_size=12))
def test_a_job_once_over_stays_as_it_is_whatever_is_tried(targets: list[JobStatus]) -> None:
    current = JobStatus.QUEUED
    ends: set[JobStatus] = set()
    for target in targets:
        if can_move(JOB_MOVES, current, target):
            current = target
        if current in TERMINAL_JOB_STATUSES:
            ends.add(current)
    assert len(ends) <= 1


def test_a_job_is_either_active_or_over() -> None:
    assert set(ACTIVE_JOB_STATUSES) == {JobStatus.QUEUED, JobStatus.IN_PROGRESS}
    assert set(TERMINAL_JOB_STATUSES) == {JobStatus.COMPLETED, JobStatus.FAILED}


def test_a_deployment_runs_only_from_pending_and_ends_only_once() -> None:
    assert sources_of(DEPLOYMENT_MOVES, DeploymentStatus.RUNNING) == (DeploymentStatus.PENDING,)
    ends = (DeploymentStatus.STOPPED, DeploymentStatus.SUPERSEDED)
    assert [sources_of(DEPLOYMENT_MOVES, end) for end in ends] == [(DeploymentStatus.RUNNING,)] * 2
    assert [DEPLOYMENT_MOVES[end] for end in (*ends, DeploymentStatus.FAILED)] == [frozenset()] * 3


@pytest.mark.parametrize("answer", ResponseStatus)
def test_every_answer_asks_for_a_status_and_final_ones_for_an_end(answer: ResponseStatus) -> None:
    assert answer.final == (job_status_for(answer) in TERMINAL_JOB_STATUSES)
