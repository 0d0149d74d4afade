"""Once the disk has failed under the database nothing more is acknowledged: the process ends with status 70.

`strace` has the N-th call of a thread fail with EIO, and all of its later ones, as a dying disk does.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.acknowledged import Callers, Told, check_kept
from tests.support.faults import chance
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

FAILS = {"pwrite64": (40, 300), "fdatasync": (5, 30)}
"""Which of a thread's calls is the first to fail: later ones than a start makes."""
END_SECONDS = 20
EXIT_STORAGE_BROKEN = 70
LINE = "The disk failed under the database"


def failing_from(call: str, number: int) -> list[str]:
    inject = f"inject={call}:error=EIO:when={number}+"
    return ["strace", "-D", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A directory that a control plane has been started in."""
    made = tmp_path / "server"
    made.mkdir()
    async with ServerProcess(made):
        return made


async def deploy_until_it_ends(
    directory: Path, told: Told, wrapper: Sequence[str] = (), sabotage: str | None = None
) -> None:
    """Deploy to a server whose disk fails; AssertionError unless it ends as it should, in good time."""
    async with (
        ServerProcess(directory, wrapper=wrapper, sabotage=sabotage) as server,
        GoAgent(server.ws_url, server.agent_token, "web-1") as agent,
    ):
        await agent.connected()
        async with Callers(server, told):
            try:
                async with asyncio.timeout(END_SECONDS):
                    status = await server.wait()
            except TimeoutError:
                await server.kill()
                raise AssertionError("the server goes on with a disk that has failed") from None
        assert status == EXIT_STORAGE_BROKEN, server.output
        assert server.stderr.count(LINE) == 1, server.output
        assert "Traceback" not in server.stderr
        check_kept(server.database_path, told)


@pytest.mark.usefixtures("strace")
@pytest.mark.promise("4")
@pytest.mark.parametrize("call", FAILS)
async def test_after_an_error_of_the_disk_nothing_is_acknowledged_and_the_process_ends(
    directory: Path, call: str
) -> None:
    told = Told()
    number = chance().randint(*FAILS[call])
    await deploy_until_it_ends(directory, told, failing_from(call, number))
    assert told.deploys
    assert set(told.statuses) <= {200, 503}
    async with ServerProcess(directory) as server:
        check_kept(server.database_path, told)


@pytest.mark.usefixtures("strace")
@pytest.mark.control("4")
async def test_the_check_finds_a_server_that_goes_on(directory: Path) -> None:
    wrapper = failing_from("fdatasync", chance().randint(*FAILS["fdatasync"]))
    with pytest.raises(AssertionError, match="goes on with a disk that has failed"):
        await deploy_until_it_ends(directory, Told(), wrapper, "broken_is_unavailable")
