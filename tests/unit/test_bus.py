"""What every bus does. One suite for all of them: a further backend is one more line in `BUSES`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from control_plane.bus.base import Bus, Topic
from control_plane.bus.memory import MemoryBus

SOON = 5.0
"""A wake-up that is to come has come by then, on the slowest machine."""


@asynccontextmanager
async def memory() -> AsyncIterator[Bus]:
    yield MemoryBus()


BUSES: dict[str, Callable[[], AbstractAsyncContextManager[Bus]]] = {"memory": memory}


@pytest.fixture(params=list(BUSES.values()), ids=list(BUSES))
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    async with request.param() as opened:
        yield opened


async def test_a_waiter_is_woken_by_its_id(bus: Bus) -> None:
    with bus.subscribe(Topic.JOB_FINISHED, "a") as ear:
        waiting = asyncio.create_task(ear.wait(SOON))
        await asyncio.sleep(0)
        bus.publish(Topic.JOB_FINISHED, ["other", "a"])
        assert await waiting


async def test_what_is_published_between_subscribing_and_waiting_is_not_missed(bus: Bus) -> None:
    with bus.subscribe(Topic.JOB_FINISHED, "a") as ear:
        bus.publish(Topic.JOB_FINISHED, ["a"])
        assert await ear.wait(SOON)


async def test_everybody_who_waits_for_an_id_is_woken(bus: Bus) -> None:
    with bus.subscribe(Topic.JOB_FINISHED, "a") as one, bus.subscribe(Topic.JOB_FINISHED, "a") as other:
        bus.publish(Topic.JOB_FINISHED, ["a"])
        assert all(await asyncio.gather(one.wait(SOON), other.wait(SOON)))


async def test_nobody_is_woken_by_another_id(bus: Bus) -> None:
    with bus.subscribe(Topic.JOB_FINISHED, "a") as ear, bus.subscribe(Topic.JOB_FINISHED, "b") as other:
        bus.publish(Topic.JOB_FINISHED, ["b"])
        assert await other.wait(SOON)
        assert not await ear.wait(0)


async def test_each_wake_up_counts_once(bus: Bus) -> None:
    with bus.subscribe(Topic.JOB_FINISHED, "a") as ear:
        bus.publish(Topic.JOB_FINISHED, ["a"])
        assert await ear.wait(SOON)
        assert not await ear.wait(0)
        bus.publish(Topic.JOB_FINISHED, ["a"])
        assert await ear.wait(SOON)


async def test_what_was_published_before_subscribing_is_not_heard(bus: Bus) -> None:
    bus.publish(Topic.JOB_FINISHED, ["a"])
    with bus.subscribe(Topic.JOB_FINISHED, "a") as ear:
        assert not await ear.wait(0)


async def test_the_end_of_one_waiter_leaves_the_others_listening(bus: Bus) -> None:
    with bus.subscribe(Topic.JOB_FINISHED, "a") as stays:
        with bus.subscribe(Topic.JOB_FINISHED, "a"):
            pass
        bus.publish(Topic.JOB_FINISHED, ["a"])
        assert await stays.wait(SOON)


async def test_a_waiter_that_is_canceled_leaves_the_bus_in_order(bus: Bus) -> None:
    async def listen() -> None:
        with bus.subscribe(Topic.JOB_FINISHED, "a") as ear:
            await ear.wait(60)

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bus.publish(Topic.JOB_FINISHED, ["a"])
    with bus.subscribe(Topic.JOB_FINISHED, "a") as ear:
        assert not await ear.wait(0)


async def test_the_memory_of_a_bus_does_not_grow_with_ids_that_nobody_waits_for() -> None:
    bus = MemoryBus()
    for number in range(100):
        with bus.subscribe(Topic.JOB_FINISHED, str(number)):
            bus.publish(Topic.JOB_FINISHED, [str(number), "nobody's"])
    assert not bus._ears
