"""The group-commit writer: what shares a commit, what fails alone, and what survives a bad database."""

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from control_plane.core.errors import OverloadedError, StorageFullError, StoreUnavailableError
from control_plane.store import database as database_module
from control_plane.store import writer as writer_module
from control_plane.store.database import StorageBrokenError, open_engine, translate_error
from control_plane.store.disk import Disk
from control_plane.store.writer import MAX_BATCH, Writer
from tests.support.store import sql
from tests.support.writing import Batches, hold, hold_behind

ALL = "SELECT item FROM note ORDER BY rowid"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return _with_table(tmp_path / "notes.db")


def _with_table(path: Path) -> Path:
    sql(path, "PRAGMA journal_mode=WAL")
    sql(path, "CREATE TABLE note (item TEXT NOT NULL UNIQUE, blob BLOB)")
    return path


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Writer]:
    opened = _open(path)
    yield opened
    await opened.close()


def _open(path: Path) -> Writer:
    def broken(error: StorageBrokenError) -> None:
        raise AssertionError(error)

    return Writer(f"sqlite:///{path}", broken, asyncio.get_running_loop(), Disk(path))


async def test_everything_that_waits_goes_into_one_commit_in_the_order_of_its_coming(
    writer: Writer, path: Path
) -> None:
    change = Batches()
    first = await hold(writer, change)
    names = [f"n{number:03}" for number in range(200)]
    waiting = [asyncio.create_task(writer.write(change, name)) for name in names]
    await asyncio.sleep(0)
    change.gate.set()
    assert list(await asyncio.gather(first, *waiting)) == ["FIRST", *(name.upper() for name in names)]
    assert change.sizes == [1, 200]
    assert sql(path, ALL) == ["first", *names]


async def test_a_commit_takes_no_more_than_its_bound(writer: Writer) -> None:
    change = Batches()
    first = await hold(writer, change)
    waiting = [asyncio.create_task(writer.write(change, str(number))) for number in range(MAX_BATCH + 1)]
    await asyncio.sleep(0)
    change.gate.set()
    await asyncio.gather(first, *waiting)
    assert change.sizes == [1, MAX_BATCH, 1]


async def test_what_comes_during_a_commit_follows_it_at_once_and_callers_of_the_first_are_told_meanwhile(
    writer: Writer,
) -> None:
    change, following = Batches(), Batches()
    first = await hold(writer, change)
    second = await hold_behind(writer, change, following)
    assert not first.done(), "told before the statements of the next batch, for which the thread needs Python's lock"
    following.gate.set()
    assert (await first, await second) == ("FIRST", "SECOND")
    assert change.sizes == following.sizes == [1]


async def test_what_is_committed_is_told_although_the_batch_behind_it_fails(writer: Writer, path: Path) -> None:
    change, following = Batches(), Batches("second")
    first = await hold(writer, change)
    second = await hold_behind(writer, change, following)
    following.gate.set()
    assert await first == "FIRST"
    with pytest.raises(ValueError, match="second"):
        await second
    assert sql(path, ALL) == ["first"]


async def test_a_result_is_given_only_when_another_connection_can_read_it(writer: Writer, path: Path) -> None:
    change = Batches()

    async def write_and_look(name: str) -> list[str]:
        await writer.write(change, name)
        return sql(path, "SELECT item FROM note WHERE item = ?", name)

    names = [str(number) for number in range(100)]
    assert list(await asyncio.gather(*map(write_and_look, names))) == [[name] for name in names]


async def test_each_commit_reaches_the_disk_before_it_is_acknowledged(path: Path) -> None:
    engine = open_engine(f"sqlite:///{path}", read_only=False, pool_size=1)
    with engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    engine.dispose()
    assert pragmas == ["wal", 2], "2 is FULL: NORMAL loses acknowledged rows in a power cut"


async def test_a_bad_item_fails_alone_and_all_others_are_stored(writer: Writer, path: Path) -> None:
    change = Batches("bad")
    first = await hold(writer, change)
    names = ["a", "bad", "b", "a", "c"]
    waiting = [asyncio.create_task(writer.write(change, name)) for name in names]
    await asyncio.sleep(0)
    change.gate.set()
    outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == [
        *("str", "str", "ValueError", "str", "IntegrityError", "str")
    ]
    assert sql(path, ALL) == ["first", "a", "b", "c"]


async def test_a_change_that_fails_takes_no_other_change_of_its_commit_along(writer: Writer, path: Path) -> None:
    good, bad = Batches(), Batches("x")
    first = await hold(writer, good)
    waiting = [asyncio.create_task(writer.write(*write)) for write in ((good, "a"), (bad, "x"), (good, "b"))]
    await asyncio.sleep(0)
    good.gate.set()
    outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [isinstance(outcome, str) for outcome in outcomes] == [True, True, False, True]
    assert sql(path, ALL) == ["first", "a", "b"]


async def test_a_caller_that_gives_up_does_not_disturb_the_commit_of_others(writer: Writer, path: Path) -> None:
    change = Batches()
    first = await hold(writer, change)
    impatient, patient = (asyncio.create_task(writer.write(change, name)) for name in ("gone", "here"))
    await asyncio.sleep(0)
    impatient.cancel()
    change.gate.set()
    assert list(await asyncio.gather(first, patient)) == ["FIRST", "HERE"]
    assert sql(path, ALL) == ["first", "gone", "here"]


async def test_a_locked_database_is_unavailable_and_works_again_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_SECONDS", 0)
    writer, change = _open(path), Batches()
    await writer.write(change, "before")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    outcomes = await asyncio.gather(*(writer.write(change, name) for name in "abc"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 3
    other.execute("ROLLBACK")
    other.close()
    assert await writer.write(change, "after") == "AFTER"
    await writer.close()
    assert sql(path, ALL) == ["before", "after"]


async def test_more_than_can_be_stored_in_good_time_is_refused(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 3)
    change = Batches()
    first = await hold(writer, change)
    waiting = [asyncio.create_task(writer.write(change, name)) for name in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="try again"):
        await writer.write(change, "one too many")
    change.gate.set()
    await asyncio.gather(first, *waiting)
    assert await writer.write(change, "afterwards") == "AFTERWARDS"
    assert sql(path, ALL) == ["first", "a", "b", "afterwards"]


async def test_closing_commits_what_waits(path: Path) -> None:
    writer, change = _open(path), Batches()
    first = await hold(writer, change)
    waiting = [asyncio.create_task(writer.write(change, str(number))) for number in range(MAX_BATCH + 5)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    change.gate.set()
    await closing
    assert len(await asyncio.gather(first, *waiting)) == MAX_BATCH + 6
    assert len(sql(path, ALL)) == MAX_BATCH + 6


async def test_a_write_after_the_end_is_refused_rather_than_left_to_wait_for_ever(path: Path) -> None:
    writer = _open(path)
    await writer.close()
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(writer.write(Batches(), "late"), 5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four MiB of their own, as a file system where this machine allows one to be mounted."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root and the right to mount")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def store_blobs(db: Connection, items: Sequence[int]) -> list[int | Exception]:
    for item in items:
        db.execute(text("INSERT INTO note VALUES (:item, randomblob(100000))"), {"item": str(item)})
    return list(items)


async def test_a_full_disk_says_so_stores_nothing_and_needs_no_restart_once_there_is_room(small_disk: Path) -> None:
    path = _with_table(small_disk / "notes.db")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    writer = _open(path)
    stored = await _write_until_full(writer)
    ballast.unlink()
    assert await writer.write(store_blobs, 1000) == 1000
    await writer.close()
    assert sql(path, ALL) == [str(number) for number in (*stored, 1000)]
    assert sql(path, "PRAGMA integrity_check") == ["ok"]


async def _write_until_full(writer: Writer) -> list[int]:
    stored: list[int] = []
    while True:
        try:
            stored.append(await writer.write(store_blobs, len(stored)))
        except StorageFullError:
            return stored


async def test_what_does_not_fit_any_more_fails_and_what_fits_is_stored(path: Path) -> None:
    def limit(db: Connection, items: Sequence[int]) -> list[int | Exception]:
        return [db.execute(text(f"PRAGMA max_page_count={pages}")).scalar_one() for pages in items]

    writer = _open(path)
    await writer.write(limit, 20)
    outcomes = await asyncio.gather(
        writer.write(Batches(), "small"),
        *(writer.write(store_blobs, number) for number in range(3)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [str, *[StorageFullError] * 3]
    await writer.write(limit, 1_000_000)
    assert await writer.write(store_blobs, 9) == 9
    await writer.close()
    assert sql(path, ALL) == ["small", "9"]


async def test_a_failing_disk_ends_it_all_before_anything_false_is_acknowledged(tmp_path: Path) -> None:
    path = _with_table(tmp_path / "notes.db")
    told: list[StorageBrokenError] = []
    writer = Writer(f"sqlite:///{path}", told.append, asyncio.get_running_loop(), Disk(path))
    await writer.write(Batches(), "before")
    sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StorageBrokenError):
        await writer.write(Batches(), "after")
    await writer.close()
    assert len(told) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, StorageBrokenError),
        (sqlite3.SQLITE_CORRUPT, StorageBrokenError),
        (sqlite3.SQLITE_FULL, StorageFullError),
        (sqlite3.SQLITE_IOERR_SHMSIZE, StorageFullError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreUnavailableError),
    ],
)
def test_what_sqlite_says_becomes_what_a_user_or_the_process_can_act_on(code: int, expected: type[Exception]) -> None:
    original = sqlite3.OperationalError("as SQLite says it")
    original.sqlite_errorcode = code
    assert type(translate_error(OperationalError("INSERT", {}, original))) is expected
