"""A link that dies in silence: noticed by the pings within 25 s, and made good when it is back.

The agents are in a network of their own, whose packets are dropped. One test, since one wait of 25 s is enough: a
second server, which sends no pings, stands beside it as the control.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from control_plane.config import Settings
from tests.faults.hosts import HELD, python_host
from tests.support.caller import Caller, calling
from tests.support.remote_network import RemoteNetwork
from tests.support.server import ServerProcess

NOTICED_SECONDS = 25
RECONNECTED_SECONDS = 60
"""After a dead link an agent may take 40 s to see that it is gone, and then dials again."""


@pytest.mark.promise("12")
def test_by_default_the_pings_leave_time_to_spare() -> None:
    # A link that dies just after it answered is found out when the next ping has not been answered in time.
    defaults = Settings.model_fields
    pings = defaults["agent_ping_interval_seconds"].default + defaults["agent_ping_timeout_seconds"].default
    assert pings <= NOTICED_SECONDS - 2


@pytest.fixture
async def network() -> AsyncIterator[RemoteNetwork]:
    async with RemoteNetwork() as network:
        yield network


async def check_noticed(caller: Caller, hostname: str, within_seconds: float) -> None:
    """Hold that an agent is shown offline in time."""
    try:
        async with asyncio.timeout(within_seconds):
            await caller.offline(hostname)
    except TimeoutError:
        raise AssertionError(f"{hostname} is still shown online after {within_seconds} s") from None


@pytest.mark.promise("12")
@pytest.mark.control("12")
async def test_a_dead_link_is_noticed_within_25_s_by_the_pings_and_its_work_ends_truthfully(
    network: RemoteNetwork, tmp_path: Path
) -> None:
    env = {"HOST": network.here}
    async with (
        ServerProcess(env=env) as server,
        ServerProcess(env=env, sabotage="no_pings") as silent,
        python_host(tmp_path / "1", server, wrapper=network.wrapper) as host,
        python_host(tmp_path / "2", silent, wrapper=network.wrapper) as unwatched,
        python_host(tmp_path / "3", server, "near", url=server.ws_url) as near,
        calling(server) as caller,
        calling(silent) as silent_caller,
    ):
        assert urlsplit(server.url).hostname == network.here
        agent_id = await caller.online(host.hostname)
        await silent_caller.online(unwatched.hostname)
        near_id = await caller.online(near.hostname)
        job = await caller.deploy(HELD, agent_id)
        assert (await caller.acknowledged(job))["status"] == "in_progress"
        await network.go_dead()
        # It ends while nobody can be told; the answer must come when the link is back.
        host.release(HELD)
        await host.agent.logged(f"Job '{job}' (DEPLOY_COMPOSE): COMPLETED")
        began = asyncio.get_running_loop().time()
        await check_noticed(caller, host.hostname, NOTICED_SECONDS)
        left = began + NOTICED_SECONDS - asyncio.get_running_loop().time()
        with pytest.raises(AssertionError):
            await check_noticed(silent_caller, unwatched.hostname, left)
        refused = await caller.client.post(f"/projects/{HELD}/stop", json={"agent_id": agent_id})
        assert (refused.status_code, refused.json()["code"]) == (503, "agent_not_connected")
        assert (await caller.job(job))["status"] == "in_progress"
        assert (await caller.over(await caller.deploy("meanwhile", near_id)))["status"] == "completed"
        await network.heal()
        ended = await caller.over(job, RECONNECTED_SECONDS)
        assert (ended["status"], host.runs()[HELD]) == ("completed", 1)
        assert (await caller.over(await caller.deploy("later", agent_id)))["status"] == "completed"
