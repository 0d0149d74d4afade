"""Pages of the audit: found at the same cost however long the history and however rare what is sought."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlmodel import Session

from control_plane.core.access import Reach
from control_plane.store.audit import WantedAudit, export_audit, list_audit, record_audit
from control_plane.store.models_audit import Audit
from tests.support.access import REACH
from tests.support.audit import entry
from tests.support.history import FAILURE, PAGE, Probe, assert_flat, assert_indexed
from tests.support.store import NOW

FILTERS: list[dict[str, Any]] = [
    {},
    {"token_id": 1},
    {"token_id": 99},
    {"action": "deploy"},
    {"action": "revoke_token"},
    {"action": "nothing"},
    {"outcome": "done"},
    {"outcome": "not_allowed"},
    {"outcome": "nothing"},
    {"reach": Reach(2)},
    {"reach": Reach(3)},
]
PERIODS: list[dict[str, Any]] = [
    {},
    {"since": NOW + timedelta(milliseconds=60)},
    {"until": NOW + timedelta(milliseconds=60)},
    {"since": NOW + timedelta(milliseconds=50), "until": NOW + timedelta(milliseconds=60)},
    {"before_id": 90},
]


def page(**wanted: Any) -> Callable[[Session], Sequence[Audit]]:
    return lambda db: list_audit(db, WantedAudit(**{"reach": REACH, "limit": PAGE, **wanted}))


@pytest.mark.parametrize("period", PERIODS, ids=["ever", "since", "until", "between", "before an id"])
@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_a_page_of_the_audit_costs_the_same_after_a_long_history(
    small: Probe, large: Probe, wanted: dict[str, Any], period: dict[str, Any]
) -> None:
    query = page(**wanted, **period)
    if not period:
        assert_indexed(small.plans(query), "audit")
    assert_flat(small.cost(query), large.cost(query))


def test_what_is_rare_is_found(large: Probe) -> None:
    with Session(large.engine) as session:
        assert [row.id for row in page(action="revoke_token")(session)] == [FAILURE]
        assert [row.id for row in page(outcome="not_allowed")(session)] == [FAILURE + 1]
        assert [row.id for row in page(reach=Reach(2), token_id=2)(session)] == [59, 56, 53, 50]


def test_a_page_of_an_export_is_flat(small: Probe, large: Probe) -> None:
    def query(db: Session) -> object:
        return export_audit(db, WantedAudit(REACH, PAGE, until=NOW + timedelta(milliseconds=70)), 30)

    assert_flat(small.cost(query), large.cost(query))


def test_what_every_commit_adds_is_flat(small: Probe, large: Probe) -> None:
    def change(db: Connection) -> None:
        record_audit(db, [(entry(organization_id=n % 3 + 1), None) for n in range(9)])

    assert_flat(small.cost_of_change(change), large.cost_of_change(change))
