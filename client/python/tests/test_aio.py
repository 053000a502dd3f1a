"""The asyncio variants; a task that is cancelled ends its call."""

import asyncio
import time

import pytest

import refit
import refit.aio
from conftest import f32


async def cancelled_soon(task):
    """Cancels it; how long it took to end, seconds."""
    await asyncio.sleep(0.2)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began


def test_there_and_back(service):
    async def main():
        async with refit.aio.Publisher(service.address, adapter="identity") as publisher:
            async with publisher.version(1) as version:
                await version.push({"w": f32(1, 2)})
            assert version.info.state == "committed"
            with pytest.raises(RuntimeError):
                async with publisher.version(2) as version:
                    await version.push({"w": f32(1, 2)})
                    raise RuntimeError("the trainer's own")
        async with refit.aio.Subscriber(service.address) as sub:
            first, second = await asyncio.gather(sub.pull(), sub.pull(1))
            assert first.number == second.number == 1
            async for info in sub.watch():
                assert info.version == 1
                break
            with pytest.raises(refit.NotFound):
                await sub.pull(9)

    asyncio.run(main())


def test_follow_installs_in_the_loop(service):
    installed = []

    async def main():
        loop = asyncio.get_running_loop()

        async def install(version):
            assert asyncio.get_running_loop() is loop
            await asyncio.sleep(0)
            installed.append(version.number)

        with service.version(1, adapter="identity") as version:
            version.push({"w": f32(1)})
        async with refit.aio.Subscriber(service.address) as sub:
            await sub.follow(install, until=lambda: True)
            assert await cancelled_soon(asyncio.create_task(sub.follow(install))) < 5

    asyncio.run(main())
    assert installed[0] == 1


def test_a_cancelled_pull_leaves_the_others_alone(service):
    async def main():
        under_way = service.version(1, adapter="identity", declare={"a": ("f32", [1]), "b": ("f32", [1])})
        async with refit.aio.Subscriber(service.address) as sub:
            other = asyncio.create_task(sub.pull(1))
            assert await cancelled_soon(asyncio.create_task(sub.pull(1))) < 5
            under_way.push({"a": f32(1), "b": f32(2)})
            under_way.commit()
            assert len(await other) == 2
            assert len(await sub.pull()) == 2

    asyncio.run(main())


def test_a_cancelled_push_is_aborted(service):
    async def main():
        async with refit.aio.Publisher(service.address, adapter="identity") as publisher:

            async def push():
                async with publisher.version(1, rank=0, world=2) as version:
                    await version.push({"w": f32(1)})  # waits for the other rank

            assert await cancelled_soon(asyncio.create_task(push())) < 5
            async with publisher.version(2) as version:
                await version.push({"w": f32(2)})

    asyncio.run(main())
    assert refit.Subscriber(service.address).pull().number == 2


def test_a_cancelled_wait_ends(service):
    async def main():
        async with refit.aio.Publisher(service.address) as publisher:
            assert await cancelled_soon(asyncio.create_task(publisher.wait_for_workers(1, timeout=60))) < 5

    asyncio.run(main())
