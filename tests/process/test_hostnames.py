"""Two installed agents that present one hostname to the real server: one serves, the other is told why it does not."""

import asyncio

from tests.support.app import WEB
from tests.support.go_agent import GoAgent
from tests.support.server import ServerProcess

WATCHED_SECONDS = 10


async def test_two_live_agents_of_one_hostname_do_not_flap() -> None:
    async with ServerProcess() as server, server.client() as client:
        first = GoAgent(server.ws_url, server.agent_token, "clone", time_scale=0.2)
        second = GoAgent(server.ws_url, server.agent_token, "clone", time_scale=0.2)
        async with first, second:
            await asyncio.wait(
                [asyncio.ensure_future(first.connected()), asyncio.ensure_future(second.refused())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            loop = asyncio.get_running_loop()
            until, served = loop.time() + WATCHED_SECONDS, 0
            while loop.time() < until:
                body = {"project_name": "web", "compose_file": WEB}
                answer = await client.post("/deploy", json=body, params={"wait": 10})
                assert answer.json()["status"] == "completed", answer.text
                served += 1
            winner, loser = (first, second) if first.connections else (second, first)
            assert (winner.connections, winner.closes) == (1, [])
            assert (loser.connections, loser.executions) == (0, [])
            assert len(loser.refusals) >= 3
            assert set(loser.refusals) == {409}
            assert len(winner.executions) == served
            agents = (await client.get("/agents")).json()
            assert (agents["total"], agents["agents"][0]["status"]) == (1, "online")
            taken = [line for line in server.stderr.splitlines() if '"event": "hostname_taken"' in line]
            assert len(taken) == len(loser.refusals)
            assert "incumbent_address" in taken[0]
            assert "newcomer_address" in taken[0]
            assert '"level": "error"' not in server.stderr, server.stderr
            winner.stop()
            await loser.connected()
            answer = await client.post("/deploy", json=body, params={"wait": 10})
            assert answer.json()["status"] == "completed"
