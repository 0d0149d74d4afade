"""What retention reads and removes goes through indexes, and costs the same after a long history.

The histories are of a hundred deploys, and of a hundred thousand.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlmodel import Session

from control_plane.store import retention
from control_plane.store.retention import Page, Sweep
from tests.support.history import LARGE, Probe, assert_flat
from tests.support.store import NOW, sql

LATER = NOW + timedelta(days=1)
Listing = Callable[[Session, Any, Any], Page]
WALKS: list[tuple[Listing, str]] = [
    (retention.list_old_jobs, "SELECT id FROM job WHERE command_type != 'DEPLOY_COMPOSE'"),
    (
        retention.list_old_deployments,
        "SELECT id FROM deployment WHERE status IN ('failed', 'stopped', 'superseded')"
        " AND id NOT IN (SELECT latest_deployment_id FROM placement)",
    ),
    (retention.list_old_events, "SELECT id FROM event"),
]


@pytest.fixture(autouse=True)
def _grown(small: Probe, large: Probe) -> None:
    """Give the jobs an end, some of them another kind, and both histories keys."""
    for probe in (small, large):
        if sql(probe.path, "SELECT count(*) FROM idempotency_record") == [0]:
            old = str(NOW)
            sql(probe.path, "UPDATE job SET finished_at = ? WHERE status IN ('completed', 'failed')", old)
            status = "UPDATE job SET command_type = 'STATUS', deployment_id = NULL"
            sql(probe.path, status + " WHERE status = 'completed' AND rowid % 2")
            sql(probe.path, "INSERT INTO idempotency_record SELECT id, '', id, NULL, ?, 1 FROM job", old)


def first_page(listing: Listing) -> Callable[[Session], Page]:
    return lambda db: listing(db, LATER, None)


@pytest.mark.parametrize(
    "listing",
    [
        retention.list_old_jobs,
        retention.list_old_deployments,
        retention.list_old_events,
        retention.list_old_idempotency_records,
    ],
)
def test_a_page_of_what_may_go_is_read_through_an_index_and_within_its_bound(
    small: Probe, large: Probe, listing: Listing
) -> None:
    plans = small.plans(first_page(listing))
    assert [line for line in plans if line.startswith("SCAN") or "TEMP B-TREE" in line] == []
    # A page of the large history is longer than the small one altogether.
    longer = retention.PAGE / 100
    assert large.cost(first_page(listing)) <= longer * (small.cost(first_page(listing)) + 20)


@pytest.mark.parametrize(("listing", "query"), WALKS)
def test_page_by_page_everything_that_is_over_is_found_once(large: Probe, listing: Listing, query: str) -> None:
    found: list[Any] = []
    after, pages = None, 0
    with Session(large.engine) as db:
        while True:
            page = listing(db, LATER, after)
            found += page.keys
            pages += 1
            if page.next_after is None:
                break
            after = page.next_after
    wanted = sql(large.path, f"{query} ORDER BY id")
    over = set(sql(large.path, "SELECT id FROM job WHERE status IN ('completed', 'failed')"))
    assert found == (wanted if listing is not retention.list_old_jobs else [key for key in wanted if key in over])
    assert len(found) > LARGE // 4
    assert pages >= LARGE // retention.PAGE


@pytest.mark.parametrize(
    ("removal", "keys"),
    [
        (retention.remove_jobs, "SELECT id FROM job WHERE command_type = 'STATUS' LIMIT 8"),
        (
            retention.remove_deployments,
            "SELECT deployment_id FROM job WHERE status = 'failed' AND deployment_id > 1 LIMIT 8",
        ),
        (retention.remove_events, "SELECT id FROM event LIMIT 8"),
        (retention.remove_idempotency_records, "SELECT key FROM idempotency_record LIMIT 8"),
    ],
)
def test_what_is_removed_at_a_time_is_flat(
    small: Probe, large: Probe, removal: Callable[..., Any], keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "HOLD_SECONDS", 60)

    def cost(probe: Probe) -> int:
        def change(db: Connection) -> None:
            (swept,) = removal(db, [Sweep(sql(probe.path, keys), LATER)])
            assert swept.removed.total() >= 8

        return probe.cost_of_change(change)

    assert_flat(cost(small), cost(large))
