"""The audit's rows: one for each entry, in the commit of its change, and chained so that a change of them is seen."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from control_plane.core.audit import CHAIN_START, HASHED, hash_of
from control_plane.core.errors import NameTakenError, QueueFullError, StorageFullError, StoreUnavailableError
from control_plane.core.protocol import CommandType
from control_plane.store import database as database_module
from control_plane.store.answers import record_answers
from control_plane.store.audit import note_entries
from control_plane.store.chain import verify_chain
from control_plane.store.deployments import accept_deployments
from control_plane.store.idempotency import AnsweredBeforeError, KeyedRequest
from control_plane.store.jobs import add_jobs
from control_plane.store.migrate import migrate
from control_plane.store.store import Store
from tests.support.audit import ROWS, chain_of, entry
from tests.support.store import NOW, add_agent, deploy, failed, new_deployment, new_job, open_store, sql


async def test_a_change_and_its_entry_are_one_commit(store: Store, database: Path) -> None:
    await add_agent(store)
    new, audit = new_deployment(), entry()
    audit.job_id = new.job_id
    deployment_id = await store.write(accept_deployments, new, audit)
    assert audit.written
    assert sql(database, ROWS) == [("deploy", "project web", "done", new.job_id, deployment_id)]
    assert chain_of(database).fault is None


async def test_entries_of_one_batch_are_chained_in_their_order(store: Store, database: Path) -> None:
    await add_agent(store)
    entries = [entry(about=f"project p{n}") for n in range(50)]
    writes = [store.write(accept_deployments, new_deployment(f"p{n}"), entries[n]) for n in range(50)]
    await asyncio.gather(*writes)
    await store.write(accept_deployments, new_deployment("last"), entry(about="project last"))
    about = sql(database, "SELECT object FROM audit ORDER BY id")
    assert about == [*(f"project p{n}" for n in range(50)), "project last"]
    assert sql(database, "SELECT previous_hash FROM audit ORDER BY id") == [
        CHAIN_START,
        *sql(database, "SELECT hash FROM audit ORDER BY id")[:-1],
    ]
    assert chain_of(database).fault is None


async def test_a_hash_is_made_as_it_is_documented(store: Store, database: Path) -> None:
    await store.write(note_entries, None, entry(about='project "ä\u2028\x7f'))
    [row] = sql(database, "SELECT * FROM audit")  # whose columns are in the order of HASHED
    values = dict(zip(HASHED, row[:-1], strict=True))
    values["at"] = values["at"].replace(" ", "T").replace("+00:00", "Z")
    text_of = json.dumps(list(values.values()), ensure_ascii=False, separators=(",", ":"))
    assert row[-1] == sha256(text_of.encode()).hexdigest()
    assert values["object"] == 'project "ä'


async def test_each_organization_has_a_chain_of_its_own(store: Store, database: Path) -> None:
    for organization in (1, 2, 1, 2, 2):
        await store.write(note_entries, None, entry(organization_id=organization))
    await asyncio.gather(*(store.write(note_entries, None, entry(organization_id=n % 3 + 1)) for n in range(9)))
    for organization in (1, 2, 3):
        links = sql(database, "SELECT previous_hash, hash FROM audit WHERE organization_id = ?", organization)
        assert [link[0] for link in links] == [CHAIN_START, *(link[1] for link in links[:-1])]
    assert sql(database, "SELECT id FROM audit ORDER BY id") == list(range(1, 15))
    assert chain_of(database).fault is None


async def test_what_is_refused_in_a_commit_has_its_row_in_that_commit(store: Store, database: Path) -> None:
    await add_agent(store)
    request = KeyedRequest(1, "key", "hash")
    new = new_deployment(request=request)
    written = await asyncio.gather(
        store.write(accept_deployments, new, entry(job_id=new.job_id)),
        store.write(accept_deployments, new_deployment("other", max_queued=0), entry(job_id="none")),
        store.write(accept_deployments, new_deployment(request=request), entry(job_id="none")),
        return_exceptions=True,
    )
    assert [type(one) for one in written] == [int, QueueFullError, AnsweredBeforeError]
    assert sql(database, ROWS) == [
        ("deploy", "project web", "done", new.job_id, 1),
        ("deploy", "project web", "queue_full", None, None),
        ("deploy", "project web", "repeated", new.job_id, None),
    ]


async def test_a_question_that_is_shared_is_told_as_repeated(store: Store, database: Path) -> None:
    await add_agent(store)
    first, second = (new_job(CommandType.HEALTH_CHECK, None) for _ in range(2))
    for each in (first, second):
        await store.write(add_jobs, each, entry("check_agent_health", "agent 1", job_id=each.job_id))
    assert [row[2:4] for row in sql(database, ROWS)] == [("done", first.job_id), ("repeated", first.job_id)]


async def test_a_cancellation_that_moves_nothing_is_told_as_refused(store: Store, database: Path) -> None:
    await add_agent(store)
    sent, _ = await deploy(store)
    waiting, _ = await deploy(store, "other", send=False)
    for job_id in (sent, waiting, waiting):
        answer = failed(job_id, None, only_unsent=True)
        await store.write(record_answers, answer, entry("cancel_job", f"job {job_id}", job_id=job_id))
    assert [row[2:4] for row in sql(database, ROWS)] == [
        ("job_already_sent", None),
        ("done", waiting),
        ("job_finished", None),
    ]


def falling_over(db: Connection, items: Sequence[str]) -> list[str | Exception]:
    for item in items:
        db.execute(text("UPDATE agent SET version = :item"), {"item": item})
        if item == "bad":
            raise ValueError(item)
    return [NameTakenError("taken") if item == "taken" else item for item in items]


async def test_after_a_bad_item_each_other_has_one_row_all_the_same(store: Store, database: Path) -> None:
    await add_agent(store)
    entries = {name: entry("change_agent", name, job_id=name) for name in ("a", "taken", "bad", "b")}
    writes = [store.write(falling_over, name, each) for name, each in entries.items()]
    await asyncio.gather(*writes, return_exceptions=True)
    assert [row[1:3] for row in sql(database, ROWS)] == [("a", "done"), ("taken", "name_taken"), ("b", "done")]
    assert [each.written for each in entries.values()] == [True, True, False, True]
    assert chain_of(database).fault is None


async def test_what_is_on_the_disk_is_not_written_again(store: Store, database: Path) -> None:
    audit = entry()
    for _ in range(2):
        await store.write(note_entries, None, audit)
    assert len(sql(database, ROWS)) == 1


async def test_what_another_process_has_written_meanwhile_is_followed(store: Store, database: Path) -> None:
    await store.write(note_entries, None, entry())
    other = open_store(database)
    await other.write(note_entries, None, entry(about="by another"))
    await other.close()
    await store.write(note_entries, None, entry())
    assert len(sql(database, ROWS)) == 3
    assert chain_of(database).fault is None


async def test_an_entry_that_cannot_be_written_takes_its_change_along(store: Store, database: Path) -> None:
    await add_agent(store)
    sql(database, "CREATE TRIGGER no_audit BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(Exception, match="no"):
        await store.write(accept_deployments, new_deployment(), entry())
    assert sql(database, "SELECT id FROM deployment") == sql(database, ROWS) == []


async def test_a_full_disk_takes_no_entries_of_what_is_refused(store: Store, database: Path) -> None:
    store._disk.run_short()
    audit = entry()
    with pytest.raises(StorageFullError):
        await store.write(note_entries, None, audit)
    assert not audit.written


async def test_while_the_database_is_locked_nothing_is_called_written(
    store: Store, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_SECONDS", 0)
    locked = open_store(database)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    audit = entry()
    with pytest.raises(StoreUnavailableError):
        await locked.write(note_entries, None, audit)
    other.execute("ROLLBACK")
    other.close()
    assert not audit.written
    await locked.write(note_entries, None, audit)
    await locked.close()
    assert len(sql(database, ROWS)) == 1


TAMPERED = [
    ("UPDATE audit SET actor = 'somebody' WHERE id = 5", "row 5 is not what its hash says"),
    ("UPDATE audit SET outcome = 'done' WHERE id = 4", "row 4 is not what its hash says"),
    ("UPDATE audit SET at = '2026-01-01 00:00:00.000000+00:00' WHERE id = 7", "row 7 is not what its hash says"),
    ("UPDATE audit SET result_id = 9 WHERE id = 1", "row 1 is not what its hash says"),
    ("UPDATE audit SET organization_id = 2 WHERE id = 9", "row 9 does not follow the row"),
    ("UPDATE audit SET hash = '0' WHERE id = 3", "row 3 is not what its hash says"),
    ("DELETE FROM audit WHERE id = 6", "row 6 is missing"),
    ("DELETE FROM audit WHERE id = 1", "row 1 is missing"),
    ("DELETE FROM audit WHERE id > 8", "the end is missing: 10 rows were written, 8 are there"),
    ("DELETE FROM audit", "the end is missing: 10 rows were written, 0 are there"),
    (
        "DELETE FROM audit WHERE id = 6; UPDATE audit SET id = id - 1 WHERE id > 6",
        "row 6 does not follow the row",
    ),
    (
        "UPDATE audit SET id = -1 WHERE id = 4; UPDATE audit SET id = 4 WHERE id = 5;"
        "UPDATE audit SET id = 5 WHERE id = -1",
        "row 4 does not follow the row",
    ),
]


@pytest.mark.parametrize(("tamper", "fault"), TAMPERED)
async def test_the_first_row_that_does_not_fit_is_named(store: Store, database: Path, tamper: str, fault: str) -> None:
    for number in range(10):
        await store.write(note_entries, None, entry(about=f"project p{number}", outcome="not_allowed"))
    assert (chain_of(database).last_id, chain_of(database).fault) == (10, None)
    connection = sqlite3.connect(database)
    connection.executescript(tamper)
    connection.close()
    found = chain_of(database).fault
    assert found is not None
    assert found.startswith(fault)


def test_a_schema_without_an_audit_has_no_chain(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        assert verify_chain(connection) is None
    connection.close()


def test_half_a_million_rows_are_verified_in_some_seconds(database: Path) -> None:
    migrate(f"sqlite:///{database}")
    rows, previous = [], CHAIN_START
    at = NOW.isoformat(" ", "microseconds")
    hashed_at = at.replace(" ", "T").replace("+00:00", "Z")
    for number in range(1, 50_001):
        told = ("API_TOKEN", "root", "192.0.2.1", "r", "deploy", "project web on agent 1", "done", "job", number)
        made = hash_of([number, 1, hashed_at, None, *told, previous])
        rows.append((number, 1, at, None, *told, previous, made))
        previous = made
    connection = sqlite3.connect(database)
    connection.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    began = time.process_time()
    assert chain_of(database).last_hash == previous
    assert time.process_time() - began < 2, "a tenth of half a million took as long as half a million may"
