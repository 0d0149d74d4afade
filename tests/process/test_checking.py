"""Compose files are judged in processes: as in this one, and whatever becomes of those processes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from control_plane.checking import processes
from control_plane.checking.base import Checker
from control_plane.checking.processes import ProcessChecker
from control_plane.checking.threads import ThreadChecker
from control_plane.core.compose import MAX_COMPOSE_BYTES, read_compose
from control_plane.core.errors import InvalidComposeFileError, OverloadedError, TooLargeError
from tests.support.server import ServerProcess

WEB = b"services: {web: {image: nginx}}\n"
WITH_WARNING = b"services: {web: {build: ., image: nginx}}\n"
LARGE = WEB + b"# a comment\n" * 2000
BAD = b"services: {web: {image: [nginx]}}\n"


@pytest.fixture(params=[ThreadChecker, ProcessChecker])
async def checker(request: pytest.FixtureRequest) -> AsyncIterator[Checker]:
    start: Callable[[], Checker] = request.param
    checker = start()
    yield checker
    await checker.close()


@pytest.fixture
async def fragile(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProcessChecker]:
    """A checker whose processes some files break."""
    monkeypatch.setattr(processes, "WORKER", "tests.support.fragile_worker")
    checker = ProcessChecker()
    yield checker
    await checker.close()


@pytest.mark.parametrize("source", [WEB, WITH_WARNING, LARGE])
async def test_a_file_passes_with_the_same_fingerprint_and_warnings_wherever_it_is_judged(
    checker: Checker, source: bytes
) -> None:
    assert await checker.check(source, "shop") == read_compose(source, "shop")


@pytest.mark.parametrize("source", [BAD, BAD + b"# a comment\n" * 2000, b"\xff", b"["])
async def test_a_file_is_refused_with_the_same_problems_wherever_it_is_judged(checker: Checker, source: bytes) -> None:
    with pytest.raises(InvalidComposeFileError) as here:
        read_compose(source, "shop")
    with pytest.raises(InvalidComposeFileError) as there:
        await checker.check(source, "shop")
    assert (there.value.detail, there.value.fields) == (here.value.detail, here.value.fields)


async def test_a_file_over_the_bound_is_refused_before_anything_reads_it(checker: Checker) -> None:
    with pytest.raises(TooLargeError):
        await checker.check(b"#" * (MAX_COMPOSE_BYTES + 1), "shop")


async def test_many_at_once_each_get_their_own_verdict(checker: Checker) -> None:
    sources = [b"services: {web%d: {image: nginx}}" % number for number in range(300)]
    files = await asyncio.gather(*(checker.check(source, "shop") for source in sources))
    assert [file.source for file in files] == sources


@pytest.mark.parametrize("fault", [b"# crash", b"# hang"])
async def test_a_file_that_breaks_its_process_is_refused_and_those_beside_it_are_judged(
    fragile: ProcessChecker, fault: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "HANG_SECONDS", 0.5)
    others = [b"services: {web%d: {image: nginx}}" % number for number in range(20)]
    sources = [*others[:10], WEB + fault, *others[10:]]
    verdicts = await asyncio.gather(*(fragile.check(source, "shop") for source in sources), return_exceptions=True)
    broken = verdicts.pop(10)
    assert isinstance(broken, InvalidComposeFileError)
    assert "could not be checked" in broken.detail
    assert [getattr(verdict, "source", verdict) for verdict in verdicts] == others


async def test_a_process_that_was_killed_is_replaced(fragile: ProcessChecker) -> None:
    await fragile.check(WEB, "shop")
    killed, other = fragile.pids
    os.kill(killed, signal.SIGKILL)
    assert (await fragile.check(WEB, "shop")).source == WEB
    assert fragile.pids[0] != killed
    assert fragile.pids[1] == other


async def test_where_no_process_starts_callers_are_told_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RESTART_SECONDS", 0.0)
    monkeypatch.setattr(processes, "WORKER", "tests.support.no_such_worker")
    checker = ProcessChecker()
    with pytest.raises(OverloadedError):
        await checker.check(WEB, "shop")
    monkeypatch.setattr(processes, "WORKER", "control_plane.checking.worker")
    with suppress(OverloadedError):  # of a process that was just being started
        await checker.check(WEB, "shop")
    assert (await checker.check(WEB, "shop")).source == WEB
    await checker.close()


async def test_a_caller_that_went_away_leaves_the_others_in_order(fragile: ProcessChecker) -> None:
    gone = asyncio.create_task(fragile.check(BAD, "shop"))
    stays = asyncio.create_task(fragile.check(WEB, "shop"))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).source == WEB


async def test_the_processes_know_no_secret_and_hold_no_file_of_the_server(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        for process in await workers(server):
            assert set(process.environ()) == {"PYTHONPATH"} | ({"LC_CTYPE"} & set(process.environ()))
            assert [file.path for file in process.open_files() if str(tmp_path) in file.path] == []
            assert process.net_connections("inet") == []


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no such policy")
async def test_the_processes_take_no_core_from_the_server_when_it_wakes_them(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        assert {os.sched_getscheduler(process.pid) for process in await workers(server)} == {os.SCHED_BATCH}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_processes_end_with_the_server_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    async with ServerProcess(tmp_path) as server:
        found = await workers(server)
        await server.terminate(number)
        _, alive = await asyncio.to_thread(psutil.wait_procs, found, 10)
        assert alive == []


async def workers(server: ServerProcess) -> list[psutil.Process]:
    """Return the judging processes of a server, once they have taken up their work."""
    async with server.client() as client:
        for file in (WEB, LARGE):  # answered: judged, and then refused for want of an agent
            answer = await client.post("/deploy", json={"project_name": "shop", "compose_file": file.decode()})
            assert answer.status_code == 503
    found = psutil.Process(server.pid).children()
    assert len(found) == 2
    return list(found)
