"""The room that is kept on the disk: made when there is some, given back by pieces, and new work refused meanwhile."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from control_plane.core.errors import StorageFullError, StoreUnavailableError
from control_plane.store import database as database_module
from control_plane.store.deployments import accept_deployments
from control_plane.store.disk import PIECE_BYTES, RESERVE_BYTES, ROOM_BYTES, Disk
from control_plane.store.store import Store
from control_plane.store.writer import MAX_BATCH
from tests.support.store import add_agent, claim, deploy, new_deployment, open_store, sql

Room = Callable[[int], None]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Set how many bytes the disk says it has free."""

    def set_free(size: int) -> None:
        found = os.statvfs_result((4096, 4096, size // 4096, size // 4096, size // 4096, 0, 0, 0, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda _path: found)

    return set_free


def reserved(database: Path) -> int:
    return database.with_name(f"{database.name}.reserve").stat().st_blocks * 512


def test_the_reserve_takes_its_place_on_the_disk_and_is_for_this_user_alone(database: Path) -> None:
    Disk(database).keep_reserve()
    assert reserved(database) >= RESERVE_BYTES
    assert database.with_name(f"{database.name}.reserve").stat().st_mode & 0o077 == 0


def test_the_reserve_is_given_back_a_piece_at_a_time_until_nothing_is_left(database: Path) -> None:
    disk = Disk(database)
    disk.keep_reserve()
    sizes = []
    while disk.give_back():
        sizes.append(reserved(database))
    assert sizes == list(range(RESERVE_BYTES - PIECE_BYTES, -1, -PIECE_BYTES))
    disk.keep_reserve()
    assert reserved(database) >= RESERVE_BYTES


def test_new_work_waits_for_the_whole_reserve_and_some_room_beside_it(database: Path, room: Room) -> None:
    disk = Disk(database)
    disk.keep_reserve()
    disk.run_short()
    disk.give_back()
    for free, full in ((0, True), (PIECE_BYTES + ROOM_BYTES - 4096, True), (PIECE_BYTES + ROOM_BYTES, False)):
        room(free)
        disk.keep_reserve()
        assert disk.is_full is full, free


def test_a_disk_without_room_for_the_reserve_is_full_from_the_start(database: Path, room: Room) -> None:
    room(RESERVE_BYTES - 4096)
    disk = Disk(database)
    disk.keep_reserve()
    assert disk.is_full
    assert not disk.give_back()


async def test_while_the_disk_is_full_new_work_is_refused_and_work_under_way_goes_on(store: Store) -> None:
    await add_agent(store)
    job_id, _ = await deploy(store, send=False)
    store._disk.run_short()
    with pytest.raises(StorageFullError, match="nothing was stored"):
        await store.write(accept_deployments, new_deployment("other"))
    await claim(store, job_id)
    await store.look_at_disk()
    await store.write(accept_deployments, new_deployment("other"))


async def test_everybody_who_waits_for_a_locked_database_hears_so_after_one_wait_for_it(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_SECONDS", 1)
    store = open_store(database)
    await add_agent(store)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    loop = asyncio.get_running_loop()
    began = loop.time()
    waiting = [store.write(accept_deployments, new_deployment(f"p-{n}")) for n in range(5 * MAX_BATCH)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    waited = loop.time() - began
    other.close()
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
    assert len({id(outcome) for outcome in outcomes}) == len(outcomes), "each has a traceback of its own"
    assert waited < 3, "each batch has waited anew"
    await store.write(accept_deployments, new_deployment("afterwards"))
    await store.close()
    assert sql(database, "SELECT project_name FROM deployment") == ["afterwards"]
