"""Jobs and deployments end as a small model says, whatever happens in whatever order; see `machine`.

FAULT_SEED repeats a run.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from control_plane.fleet import dispatcher
from control_plane.store import answers
from control_plane.store.bulk import Bulk
from control_plane.store.migrate import migrate
from control_plane.store.moves import Answer, JobFacts
from tests.faults.machine import Machine
from tests.support import model
from tests.support.faults import chance


@pytest.fixture(scope="module", autouse=True)
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Migrate once, not for each example."""
    path = tmp_path_factory.mktemp("machine") / "empty.db"
    migrate(f"sqlite:///{path}")
    Machine.empty = path.read_bytes()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log nothing: thousands of lines, of which none tells more than the steps that are printed with a failure."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def patient_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no lane lose its patience while a slow machine looks at the model."""
    monkeypatch.setattr(dispatcher, "ACKNOWLEDGE_SECONDS", 3600)


def drive(examples: int, steps: int, number: int) -> None:
    """Run the machine. Raises AssertionError at the first difference from the model."""
    run_state_machine_as_test(
        seed(number)(Machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            phases=[Phase.generate],
            database=None,
        ),
    )


@pytest.mark.promise("7")
@pytest.mark.promise("18")
def test_whatever_happens_in_whatever_order_ends_as_the_model_says() -> None:
    drive(examples=50, steps=50, number=chance().getrandbits(32))


@pytest.mark.control("7")
def test_without_the_guard_of_ended_jobs_a_late_answer_makes_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, unguarded = answers._judge, cast("Any", answers._MOVE._statement)._generate()

    def judge_anew(answer: Answer, row: JobFacts | None) -> answers.Outcome:
        outcome = judge(answer, row)
        return answers.Outcome.MOVED if outcome is answers.Outcome.LATE else outcome

    unguarded._where_criteria = unguarded._where_criteria[:1]  # by id alone: the compare-and-set is gone
    monkeypatch.setattr(answers, "_judge", judge_anew)
    monkeypatch.setattr(answers, "_MOVE", Bulk(unguarded))
    with pytest.raises(AssertionError):
        drive(examples=50, steps=50, number=7)


@pytest.mark.control("18")
def test_without_the_check_of_its_owner_a_forged_answer_makes_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = answers._judge
    monkeypatch.setattr(answers, "_judge", lambda answer, row: judge(replace(answer, agent_id=None), row))
    with pytest.raises(AssertionError):
        drive(examples=50, steps=50, number=3)


def test_the_model_is_small_enough_to_be_read_at_a_glance() -> None:
    assert len(Path(model.__file__).read_text().splitlines()) <= 60
