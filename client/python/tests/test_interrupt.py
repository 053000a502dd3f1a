"""Ctrl-C ends any call, soon, and leaves the process in order."""

import os
import signal
import threading
import time

import pytest

import refit
from conftest import f32


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
        lambda: refit.Subscriber("127.0.0.1:1", connect_timeout=1.5),
    ):
        assert interrupted(call) < 5
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
    assert interrupted(worker.follow) < 5
    assert worker.installed is None


def test_within_a_block(service):
    publisher = refit.Publisher(service.address, adapter="identity")

    def push():
        with publisher.version(1) as version:
            version.push({"w": f32(1)})
            time.sleep(60)

    assert interrupted(push) < 5
    with pytest.raises(refit.RefitError):
        refit.Subscriber(service.address).pull(1, resume_within=0, idle_timeout=5)
    with publisher.version(2) as version:
        version.push({"w": f32(2)})
