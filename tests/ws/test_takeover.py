"""Two that claim one hostname: a live incumbent keeps it, a dead one loses it, and it never flaps between them."""

import asyncio

import pytest

from control_plane.fleet import manager
from tests.support.app import AGENT_TOKEN
from tests.support.go_agent import GoAgent
from tests.support.raw_socket import RawSocket, RefusalError
from tests.ws.fleet import Fleet

pytestmark = pytest.mark.promise("11")

BIG = "services:\n  web:\n    image: nginx\n" + "".join(f"    # {'x' * 100}\n" for _ in range(2_000))
"""A deploy whose command does not fit in the buffers of a peer that reads nothing, on a link with small ones."""


@pytest.fixture
def quick_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "INCUMBENT_PING_SECONDS", 0.2)


async def fill_buffer(fleet: Fleet, stalled: RawSocket, agent_id: int = 1) -> None:
    """Have commands sent to an agent that acknowledges and reads none, until they do not fit any more."""
    session = fleet.plane.manager.find_session(agent_id)
    assert session is not None
    for n in range(100):
        if not session.socket.writable:
            return
        job = await fleet.start(f"filler-{n}", BIG, agent_id=agent_id)
        stalled.say(job, "IN_PROGRESS")
        await fleet.counted("moved", n + 1)
    pytest.fail("the buffer of the peer that does not read never filled")


async def verdict(rival: GoAgent) -> None:
    """Wait until an agent is in, or was refused often enough to know that it will not be."""
    await rival.until(lambda: rival.is_connected or len(rival.refusals) >= 3, "a verdict")


async def test_a_live_incumbent_keeps_its_hostname_and_goes_on_working(fleet: Fleet) -> None:
    incumbent = await fleet.joined("web-1")
    incumbent.hold("slow")
    running = await fleet.start("slow")
    await incumbent.received(running)
    newcomer = await fleet.agents.enter_async_context(fleet.go_agent("web-1"))
    assert await newcomer.refused(3) == 409
    assert "hostname_taken" in newcomer.refusal_texts[0]
    assert "127.0.0.1" in newcomer.refusal_texts[0]
    assert (incumbent.connections, incumbent.closes) == (1, [])
    assert (await fleet.row("web-1"))["status"] == "online"
    incumbent.release("slow")
    assert (await fleet.over(running))["status"] == "completed"
    assert (await fleet.deploy("next"))["status"] == "completed"
    assert newcomer.executions == []


async def test_a_frozen_incumbent_is_replaced_within_the_handshake_limit_and_told_why(fleet: Fleet) -> None:
    frozen = await fleet.joined("web-1", reconnect=False)
    frozen.freeze()
    clock = asyncio.get_running_loop().time
    began = clock()
    newcomer = await fleet.joined("web-1")
    assert manager.INCUMBENT_PING_SECONDS <= clock() - began < manager.INCUMBENT_PING_SECONDS + 2
    assert newcomer.refusals == []
    frozen.thaw()
    await frozen.disconnected()
    assert frozen.closes == [(4001, "replaced by a newer connection")]
    assert (await fleet.row("web-1"))["status"] == "online"
    assert (await fleet.deploy("web"))["status"] == "completed"
    assert (len(newcomer.executions), len(frozen.executions)) == (1, 0)


@pytest.mark.usefixtures("quick_ping")
async def test_an_incumbent_with_a_full_buffer_holds_up_no_newcomer(fleet: Fleet) -> None:
    stalled = await fleet.raw("web-1", receive_buffer=4096)
    await fill_buffer(fleet, stalled)
    async with asyncio.timeout(5):
        newcomer = await fleet.joined("web-1")
    assert newcomer.refusals == []


@pytest.mark.usefixtures("quick_ping")
async def test_the_same_process_takes_its_place_at_once_without_a_ping(fleet: Fleet) -> None:
    headers = ("X-Agent-Instance", "process-1")
    first = await fleet.raw("web-1", headers)
    second = await fleet.raw("web-1", headers)
    assert await first.closed() == (4001, "replaced by a newer connection")
    job = await fleet.start("web")
    assert (await second.command())["id"] == job
    assert (await fleet.row("web-1"))["status"] == "online"


async def test_another_process_of_the_same_name_is_refused_while_the_first_answers(fleet: Fleet) -> None:
    first = await fleet.joined("web-1", headers={"X-Agent-Instance": "process-1"})
    with pytest.raises(RefusalError) as refused:
        await RawSocket.open(fleet.ws_url, AGENT_TOKEN, "web-1", ("X-Agent-Instance", "process-2"))
    assert refused.value.status == 409
    assert first.closes == []


@pytest.mark.parametrize("frozen", [False, True], ids=["free-name", "frozen-incumbent"])
@pytest.mark.usefixtures("quick_ping")
async def test_of_newcomers_at_the_same_instant_one_wins_and_keeps_winning(fleet: Fleet, frozen: bool) -> None:
    if frozen:
        (await fleet.joined("web-1", reconnect=False)).freeze()
    rivals = [fleet.go_agent("web-1") for _ in range(5)]
    for rival in rivals:
        await fleet.agents.enter_async_context(rival)
    for rival in rivals:
        await verdict(rival)
    winners = [rival for rival in rivals if rival.is_connected]
    assert len(winners) == 1
    for n in range(5):
        assert (await fleet.deploy(f"p-{n}"))["status"] == "completed"
    assert len(winners[0].executions) == 5
    assert sum(rival.connections for rival in rivals) == 1
    assert winners[0].closes == []
    assert {status for rival in rivals for status in rival.refusals} <= {409}


@pytest.mark.usefixtures("quick_ping")
async def test_a_newcomer_that_gives_up_while_the_incumbent_is_asked_leaves_nothing_behind(fleet: Fleet) -> None:
    frozen = await fleet.joined("web-1", reconnect=False)
    frozen.freeze()
    dialing = asyncio.create_task(RawSocket.open(fleet.ws_url, AGENT_TOKEN, "web-1"))
    await fleet.until(lambda: (1, "web-1") in fleet.plane.manager._doors)
    dialing.cancel()
    await fleet.offline("web-1")
    again = await fleet.joined("web-1")
    assert again.refusals == []
    assert (await fleet.deploy("web"))["status"] == "completed"
