"""Requests that the server itself gives up, as it does with what is left when the grace of a shutdown is over."""

import asyncio
from typing import Any

import pytest

from control_plane.operations.deploying import deploy
from control_plane.store.deployments import accept_deployments
from tests.support.access import ROOT
from tests.support.app import WEB
from tests.ws.fleet import Fleet


async def give_up_a_deploy(fleet: Fleet, when: str) -> str:
    """Cancel a deploy before or after its commit, when nothing is written to its agent yet; return its job's id."""
    real_write = fleet.plane.store.write
    submitted: list[str] = []

    async def write(change: Any, item: Any, audit: Any = None) -> Any:
        if change is not accept_deployments:
            return await real_write(change, item, audit)
        submitted.append(item.job_id)
        if when == "after":
            await real_write(change, item, audit)
        deploying.cancel()
        if when == "before":
            return await real_write(change, item, audit)
        await asyncio.sleep(0)
        raise AssertionError("was not canceled")

    fleet.plane.store.write = write  # type: ignore[method-assign]
    deploying = asyncio.create_task(deploy(fleet.plane, ROOT, "web", WEB.encode(), agent_id=1))
    with pytest.raises(asyncio.CancelledError):
        await deploying
    fleet.plane.store.write = real_write  # type: ignore[method-assign]
    return submitted[0]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_deploy_that_is_stored_although_its_request_was_given_up_goes_out(fleet: Fleet, when: str) -> None:
    agent = await fleet.joined()
    job = await give_up_a_deploy(fleet, when)
    after = await fleet.deploy("web")
    assert (after["status"], (await fleet.over(job, wait=5))["status"]) == ("completed", "completed")
    assert sorted(run.job_id for run in agent.executions) == sorted([job, after["job_id"]])
    assert agent.overlaps() == []
