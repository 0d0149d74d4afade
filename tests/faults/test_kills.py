"""A deploy that was answered survives kill -9 at any instant: before, in and after its commit, and at its answer.

`strace` kills the server as one of its threads enters its N-th call that writes to the database, syncs it, or
writes to a socket.
"""

import signal
from pathlib import Path

import pytest

from tests.faults.acknowledged import Callers, Told, check_kept
from tests.support.faults import chance
from tests.support.go_agent import GoAgent
from tests.support.server import ServerFailedError, ServerProcess

KILLS = {"pwrite64": (30, 300), "fdatasync": (8, 30), "write": (60, 160)}
"""Which of a thread's calls it dies at: later ones than a start makes, earlier than some seconds of deploys do."""
DEADLINE_SECONDS = 5
"""For jobs whose end was killed on its way to the database: the installed agent tells it once."""

pytestmark = pytest.mark.usefixtures("strace")


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """A directory that a control plane has been started in, which knows one agent."""
    made = tmp_path / "server"
    made.mkdir()
    async with ServerProcess(made) as server, GoAgent(server.ws_url, server.agent_token, "web-1") as agent:
        await agent.connected()
        return made


def killed_at(call: str, number: int) -> list[str]:
    """Return what a server is started by to be killed at this call; with -D its end is seen as it is."""
    inject = f"inject={call}:signal=KILL:when={number}"
    return ["strace", "-D", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]


async def deploy_until_killed(server: ServerProcess, told: Told) -> None:
    """Start a server and give it work until it is killed, be it before its agent is in."""
    async with (
        server,
        GoAgent(server.ws_url, server.agent_token, "web-1"),
        Callers(server, told, agent_id=1, when_offline="queue"),
    ):
        assert await server.wait() == -signal.SIGKILL, server.output


async def everything_ends(directory: Path) -> None:
    """Start a server on what the killed ones left; every job comes to an end."""
    env = {"DEPLOY_TIMEOUT_SECONDS": str(DEADLINE_SECONDS)}
    async with (
        ServerProcess(directory, env) as server,
        server.client() as client,
        GoAgent(server.ws_url, server.agent_token, "web-1") as agent,
    ):
        await agent.connected()
        for status in ("queued", "in_progress"):
            while jobs := (await client.get("/jobs", params={"status": status})).json()["jobs"]:
                ended = await client.get(f"/jobs/{jobs[0]['id']}", params={"wait": DEADLINE_SECONDS + 6})
                assert ended.json()["status"] in {"completed", "failed"}, ended.text


@pytest.mark.promise("1")
async def test_what_was_acknowledged_survives_a_kill_at_any_call(directory: Path) -> None:
    told, env = Told(), {"DEPLOY_TIMEOUT_SECONDS": str(DEADLINE_SECONDS)}
    random = chance()
    for call, bounds in KILLS.items():
        number = random.randint(*bounds)
        print(f"killed at {call} {number}")  # noqa: T201 - shown with a failure
        server = ServerProcess(directory, env, wrapper=killed_at(call, number))
        await deploy_until_killed(server, told)
        check_kept(server.database_path, told)
    assert told.deploys
    await everything_ends(directory)


@pytest.mark.promise("1")
async def test_a_kill_while_the_database_is_made_leaves_one_that_the_next_start_completes(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path, wrapper=killed_at("pwrite64", chance().randint(1, 100)))
    with pytest.raises(ServerFailedError, match="ended with status -9"):
        await server.start()
    async with ServerProcess(tmp_path) as server, Callers(server, Told()) as callers:
        await callers.told(503)  # no agent is there, and the database can say so


@pytest.mark.control("1")
async def test_the_check_finds_acknowledgements_before_their_commit(directory: Path) -> None:
    told, killed = Told(), killed_at("pwrite64", chance().randint(200, 400))
    # Deploys for an agent that is away, so that each commit holds some.
    async with (
        ServerProcess(directory, sabotage="early_acknowledgement", wrapper=killed) as server,
        Callers(server, told, agent_id=1, when_offline="queue"),
    ):
        assert await server.wait() == -signal.SIGKILL, server.output
    with pytest.raises(AssertionError, match="acknowledged deploys are lost"):
        check_kept(server.database_path, told)


@pytest.mark.control("1")
async def test_the_check_finds_an_audit_that_is_written_after_what_it_tells_of(directory: Path) -> None:
    told = Told()
    async with (
        ServerProcess(directory, sabotage="audit_apart") as server,
        Callers(server, told, agent_id=1, when_offline="queue"),
        server.client() as client,
    ):
        while not (await client.get("/deployments")).json()["deployments"]:
            pass
        await server.kill()
    with pytest.raises(AssertionError, match="without their entry in the audit"):
        check_kept(server.database_path, told)
