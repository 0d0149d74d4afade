"""What tests of the agents' side do with a control plane: connect agents of every kind to it, and ask it things."""

import asyncio
from collections.abc import Callable
from typing import Any

from control_plane.core.metrics import ANSWER_OUTCOMES
from tests.support.app import AGENT_TOKEN, WEB, Answer, Site
from tests.support.go_agent import GoAgent
from tests.support.raw_socket import Header, RawSocket


class Fleet(Site):
    """A running control plane and its agents."""

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/ws"

    @property
    def counts(self) -> dict[str, int]:
        """What the control plane has counted of answers, by what became of them; a duplicate is late, too."""
        metrics = self.plane.metrics.registry
        counts = {
            outcome: int(metrics.get_sample_value("instadeploy_agent_answers_total", {"outcome": outcome}) or 0)
            for outcome in ANSWER_OUTCOMES
        }
        counts["late"] += counts.pop("duplicate")
        counts["bad_message"] = int(metrics.get_sample_value("instadeploy_agent_bad_messages_total") or 0)
        return counts

    def go_agent(self, hostname: str = "host-1", **options: Any) -> GoAgent:
        """Return an agent that is not started."""
        return GoAgent(self.ws_url, AGENT_TOKEN, hostname, **options)

    async def joined(self, hostname: str = "host-1", **options: Any) -> GoAgent:
        """Return a connected agent; it is stopped when the test ends."""
        agent = await self.agents.enter_async_context(self.go_agent(hostname, **options))
        await agent.connected()
        return agent

    async def raw(self, hostname: str = "host-1", *headers: Header, **options: Any) -> RawSocket:
        """Return a raw socket that was admitted as the agent `hostname`."""
        raw = await RawSocket.open(self.ws_url, AGENT_TOKEN, hostname, *headers, **options)
        return await self.agents.enter_async_context(raw)

    async def until(self, holds: Callable[[], bool], within_seconds: float = 20) -> None:
        """Wait until `holds()`, asked again after each answer of the control plane."""
        async with asyncio.timeout(within_seconds):
            while not holds():
                await self.get("/health")

    async def counted(self, outcome: str, at_least: int) -> None:
        """Wait until so many answers came to this outcome."""
        await self.until(lambda: self.counts.get(outcome, 0) >= at_least)

    async def offline(self, hostname: str) -> Answer:
        """Return an agent's row once it says that the agent is gone."""
        async with asyncio.timeout(20):
            while (row := await self.row(hostname))["status"] != "offline":
                pass
        return row

    async def row(self, hostname: str) -> Answer:
        """Return an agent as the API shows it."""
        agents = (await self.get("/agents"))["agents"]
        return next(agent for agent in agents if agent["hostname"] == hostname)

    async def start(self, project: str, file: str = WEB, **fields: Any) -> str:
        """Deploy without waiting for the outcome; return the job's id."""
        return str((await self.deploy(project, wait=0, file=file, **fields))["job_id"])

    async def sent(self, raw: RawSocket, project: str = "web", hostname: str = "host-1") -> str:
        """Have a deploy sent to the agent of `raw`; return the job's id."""
        job = await self.start(project, agent_id=(await self.row(hostname))["id"])
        assert (await raw.command())["id"] == job
        return job

    async def over(self, job_id: str, wait: float = 30) -> Answer:
        """Return a job once it is over."""
        job: Answer = await self.get(f"/jobs/{job_id}", wait=wait)
        assert job["status"] in {"completed", "failed"}, job
        return job
