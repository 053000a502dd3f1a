"""Ctrl-C ends any call, soon, and leaves the process in order."""

import asyncio
import os
import signal
import socket
import threading
import time

import pytest

import refit
import refit.aio
from conftest import f32
from processes import start, stop

# How soon. Alone on its machine it is 0.2; the suite's tests run beside each other.
SECONDS = float(os.environ.get("REFIT_INTERRUPT_SECONDS", "1"))


def interrupted(call):
    """Runs it; Ctrl-C comes while it waits. How long it took to end, seconds."""
    came = []

    def interrupt():
        time.sleep(0.3)
        came.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    ended = time.monotonic()
    thread.join()
    print(f"{(ended - came[0]) * 1000:4.0f} ms")
    return ended - came[0]


def test_calls_that_wait(service):
    publisher = refit.Publisher(service.address, adapter="identity")
    sub = refit.Subscriber(service.address)
    of_two_ranks = refit.Publisher(service.address, adapter="identity", model="other")
    under_way = service.version(1, adapter="identity", declare={"w": ("f32", [1])})
    installed = []
    for call in (
        lambda: sub.pull(1),
        lambda: next(sub.watch(after=1)),
        lambda: sub.follow(install=installed.append),
        lambda: publisher.wait_for_workers(1, timeout=60),
        lambda: of_two_ranks.version(5, rank=0, world=2).push({"w": f32(1)}),
        lambda: refit.Worker(service.address, install=installed.append).wait_for(1, timeout=60),
    ):
        assert interrupted(call) < SECONDS
    # All goes on as if nothing had been.
    under_way.push({"w": f32(1)})
    under_way.commit()
    assert len(sub.pull()) == 1 and installed == []
    with publisher.version(6) as version:
        version.push({"w": f32(6)})
    assert sub.pull().number == 6


def test_within_a_callback(service):
    with service.version(1, adapter="identity") as version:
        version.push({"w": f32(1)})
    worker = refit.Worker(service.address, install=lambda version: time.sleep(60))
    assert interrupted(worker.follow) < SECONDS
    assert worker.installed is None


def test_within_a_block(service):
    publisher = refit.Publisher(service.address, adapter="identity")

    def push():
        with publisher.version(1) as version:
            version.push({"w": f32(1)})
            time.sleep(60)

    assert interrupted(push) < SECONDS
    with pytest.raises(refit.RefitError):
        refit.Subscriber(service.address).pull(1, resume_within=0, idle_timeout=5)
    with publisher.version(2) as version:
        version.push({"w": f32(2)})


@pytest.fixture
def silent():
    """The address of one that accepts connections, and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def connect_in_asyncio(address):
    async with refit.aio.Subscriber(address, connect_timeout=60):
        pass


def test_while_it_connects(silent):
    for address in (silent, "127.0.0.1:1"):
        for call in (
            lambda: refit.Subscriber(address, connect_timeout=60),
            lambda: refit.Publisher(address, connect_timeout=60),
            lambda: refit.Worker(address, install=print, connect_timeout=60),
            lambda: asyncio.run(connect_in_asyncio(address)),
        ):
            assert interrupted(call) < SECONDS, address


def test_with_a_service_that_does_not_answer(transport):
    process = start(
        """
service = refit.serve(memory="256MiB")
with service.version(1, adapter="identity") as version:
    version.push({"w": row(1)})
print(service.address, flush=True)
sys.stdin.read()
""",
        stdin=-1,
    )
    address = process.stdout.readline().strip()
    publisher = refit.Publisher(address, transport=transport, adapter="identity")
    others = [refit.Publisher(address, transport=transport, adapter="identity") for _ in range(3)]
    subs = [refit.Subscriber(address, transport=transport) for _ in range(3)]
    workers = [refit.Worker(address, transport=transport, install=lambda version: None) for _ in range(3)]
    workers[2].refit()
    pulled = subs[2].pull()
    under_way = publisher.version(2, declare={"w": ("u8", [160 << 20])})
    complete = refit.Publisher(address, transport=transport, adapter="identity", model="other").version(
        3, declare={"w": ("u8", [1])}
    )
    complete.push({"w": memoryview(b"1")})
    stop(process)
    try:
        for call in (
            lambda: subs[0].pull(),
            lambda: next(subs[1].watch()),
            lambda: workers[0].follow(),
            lambda: workers[1].refit(),
            lambda: under_way.push({"w": memoryview(bytes(160 << 20))}),
            lambda: complete.commit(),
            lambda: others[0].abort(2, "no"),
            lambda: others[1].release(2),
            lambda: others[2].wait_for_workers(2),
        ):
            assert interrupted(call) < SECONDS
        begin = time.monotonic()
        del pulled  # its lease cannot be given back
        assert time.monotonic() - begin < SECONDS
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.close()
        process.wait(30)


def test_of_a_service_of_ones_own():
    service = refit.serve(memory="1GiB")
    under_way = refit.Publisher(service.address, adapter="identity").version(1, declare={"w": ("f32", [1])})
    assert interrupted(lambda: service.close(grace=60)) < SECONDS
    with pytest.raises(refit.RefitError):
        under_way.push({"w": f32(1)})
        under_way.commit()
