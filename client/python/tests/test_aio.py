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


def test_works_without_async_with(service):
    async def main():
        publisher = refit.aio.Publisher(service.address, adapter="identity")
        version = publisher.version(1)
        assert version.info is None
        await version.push({"w": f32(1, 2)})
        assert (await version.commit()).state == "committed"
        given_up = publisher.version(2)
        await given_up.push({"w": f32(1, 2)})
        await given_up.abort("enough")
        assert await publisher.last_run() == (0, 2) and await publisher.connected_workers() == 0
        sub = refit.aio.Subscriber(service.address)
        pulled = await asyncio.gather(*(sub.pull() for _ in range(4)))  # each may be the one that connects
        assert [version.number for version in pulled] == [1, 1, 1, 1]
        assert repr(publisher) == f"refit.aio.Publisher('{service.address}')"
        await publisher.close()
        await sub.close()

    asyncio.run(main())


def test_without_a_service_what_is_awaited_first_says_so():
    async def main():
        with pytest.raises(refit.Unavailable, match="127.0.0.1:1"):
            await refit.aio.Subscriber("127.0.0.1:1", connect_timeout=0.2).pull()
        async with refit.aio.Publisher("127.0.0.1:1", connect_timeout=0.2):
            pass

    with pytest.raises(refit.Unavailable, match="127.0.0.1:1"):
        asyncio.run(main())


def test_a_cancelled_connecting_ends(service):
    async def main():
        sub = refit.aio.Subscriber("192.0.2.1:1", connect_timeout=60)  # nobody answers there
        assert await cancelled_soon(asyncio.create_task(sub.pull())) < 5

    asyncio.run(main())
