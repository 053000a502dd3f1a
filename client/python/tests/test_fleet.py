"""What the fleet is told is true: lives of workers, runs of trainers, versions that hold nothing."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import refit
from conftest import f32


def publish(address, number, value=None, **options):
    with refit.Publisher(address, adapter="identity").version(number, rank=0, world=1, **options) as version:
        version.push({"w": f32(number if value is None else value)})


def eventually(condition, patience=20.0):
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


WORKER = """
import sys, refit
worker = refit.Worker(sys.argv[1], worker="w0", install=lambda version: None)
worker.refit()
print("installed", flush=True)
sys.stdin.read()                                     # lives on, and does nothing
"""


@pytest.fixture
def worker_process(service):
    started = []

    def start():
        child = subprocess.Popen(
            [sys.executable, "-c", WORKER, service.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        assert child.stdout.readline() == "installed\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_worker_that_was_killed_does_not_count(service, worker_process):
    publish(service.address, 1)
    publisher = refit.Publisher(service.address)
    child = worker_process()
    assert publisher.wait_for_workers(1, all=True) == 1
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(refit.DeadlineExceeded, match="0 are connected; gone, and not counted: w0"):
        for _ in range(200):  # until the service has seen it go
            publisher.wait_for_workers(1, all=True, timeout=0.05)
    worker_process()
    assert publisher.wait_for_workers(1, all=True) == 1


def test_two_processes_of_one_name_are_two_workers(service, worker_process):
    publish(service.address, 1)
    worker_process()
    worker_process()
    assert refit.Publisher(service.address).wait_for_workers(1, workers=2) == 2


def test_a_worker_that_only_refits_stays_connected(service):
    publish(service.address, 1)
    worker = refit.Worker(service.address, install=lambda version: None)
    worker.refit()
    publisher = refit.Publisher(service.address)
    assert publisher.wait_for_workers(1, all=True, timeout=1) == 1
    publish(service.address, 2)
    with pytest.raises(refit.DeadlineExceeded, match="behind: "):
        publisher.wait_for_workers(2, all=True, timeout=0.05)
    del worker
    with pytest.raises(refit.DeadlineExceeded, match="gone, and not counted"):
        for _ in range(200):
            publisher.wait_for_workers(1, timeout=0.05)


def test_a_larger_epoch_is_followed_to_lower_numbers(service):
    installed = []
    worker = refit.Worker(service.address, install=lambda version: installed.append(version.number))
    follower = threading.Thread(target=worker.follow)
    follower.start()
    publisher = refit.Publisher(service.address)
    try:
        publish(service.address, 50, trainer_epoch=1)
        assert publisher.wait_for_workers(50) == 1
        assert publisher.last_run() == (1, 50)
        publish(service.address, 1, trainer_epoch=2)
        assert publisher.wait_for_workers(1, trainer_epoch=2) == 1
        worker.wait_for(1, 5, trainer_epoch=2)
        with pytest.raises(refit.FailedPrecondition, match="epoch 2 has taken over"):
            publisher.wait_for_workers(50, trainer_epoch=1)
    finally:
        worker.stop()
        follower.join()
    assert installed == [50, 1]
    assert publisher.last_run() == (2, 50)


def test_a_number_of_another_run_is_not_taken(service):
    publish(service.address, 1, 111, trainer_epoch=1)
    publish(service.address, 1, 222, trainer_epoch=2)
    sub = refit.Subscriber(service.address)

    def of(**options):
        return bytes(memoryview(sub.pull(1, **options).tensors[0].memory))

    assert of() == of(trainer_epoch=2) == f32(222).tobytes()
    assert of(trainer_epoch=1) == f32(111).tobytes()
    with pytest.raises(refit.NotFound, match="of trainer epoch 3"):
        of(trainer_epoch=3)
    events = sub.watch(after=0, trainer_epoch=2)
    assert next(events).trainer_epoch == 2


def restarted(service):
    """Another service at the same address, which remembers nothing."""
    address = service.address
    service.close()
    return refit.serve(address, memory="64MiB")


def test_another_run_is_told_once_and_taken_by_who_accepts_it():
    service = refit.serve(memory="64MiB")
    errors = []
    stays = refit.Worker(service.address, worker="stays", install=lambda v: None, on_error=errors.append)
    goes = refit.Worker(service.address, worker="goes", install=lambda v: None, accept_new_run=True)
    follower = threading.Thread(target=stays.follow)
    follower.start()
    try:
        publish(service.address, 50)
        stays.wait_for(50, 20)
        goes.refit()
        service = restarted(service)
        publish(service.address, 1)
        publish(service.address, 2)
        of_run = lambda: [error for error in errors if "of another run" in str(error)]  # noqa: E731
        eventually(of_run)
        assert goes.refit().version == 2
        with pytest.raises(refit.DeadlineExceeded, match=r"1 workers have.*behind: stays \(has 50 of another run"):
            refit.Publisher(service.address).wait_for_workers(2, all=True, timeout=0.3)
        assert stays.of_other_run and stays.installed == 50 and not goes.of_other_run
        assert len(of_run()) == 1 and "accept_new_run" in str(of_run()[0])
    finally:
        stays.stop()
        follower.join()
        service.close()


@pytest.mark.parametrize("way", ["wire", "in process"])
def test_a_version_that_would_hold_nothing_is_refused(service, way):
    publish(service.address, 1)
    if way == "wire":
        open_version = refit.Publisher(service.address, adapter="identity").version
    else:
        open_version = lambda number, **options: service.version(number, adapter="identity", **options)  # noqa: E731
    for tensors, options, reason in (
        ({}, {}, "no tensors were declared"),
        ({"w": f32()}, {}, "all 1 tensors declared are empty, such as w"),
        (
            {"w": f32(1)},
            {"exclude_key_regex": ".*"},
            "no tensors were declared besides those of exclude_key_regex '.\\*'",
        ),
        ({}, {"declare": {}}, "no tensors were declared"),
    ):
        with pytest.raises(refit.InvalidArgument, match=f"default/2 would hold nothing: {reason}.*allow_empty"):
            with open_version(2, **options) as version:
                version.push(tensors)
    assert refit.Subscriber(service.address).pull().number == 1


def test_an_empty_version_that_is_meant_pushes_out_none_that_is_not(service):
    publish(service.address, 1)
    for number in range(2, 6):  # more than are retained
        with refit.Publisher(service.address, adapter="identity").version(number, allow_empty=True) as version:
            version.push({})
    sub = refit.Subscriber(service.address)
    assert sub.pull().number == 5 and len(sub.pull()) == 0
    assert bytes(memoryview(sub.pull(1).tensors[0].memory)) == f32(1).tobytes()


def test_a_filter_that_selects_nothing_is_not_found(service):
    publish(service.address, 1)
    with pytest.raises(refit.NotFound, match="filter 'no such' selects none of its 1 tensors"):
        refit.Subscriber(service.address).pull(filter="no such")


def test_what_is_taken_from_torch_distributed_is_said(monkeypatch):
    monkeypatch.setattr("refit.publisher.process_rank", lambda: (0, 2))
    with refit.serve(memory="64MiB") as service:
        publisher = refit.Publisher(service.address, adapter="identity")
        with pytest.raises(
            refit.RefitError, match="rank 0 of 2 is torch.distributed's; say otherwise with rank= and world="
        ):
            # Another adapter than the rank before: refused at once, rather than after the wait for rank 1.
            with refit.Publisher(service.address, adapter="no such").version(1) as version:
                version.push({"w": f32(1)})
        with publisher.version(1, rank=0, world=1) as version:
            version.push({"w": f32(1)})


def test_a_run_that_begins_with_its_oldest_checkpoint_is_followed_through(service):
    """A trainer that restarts offers what it was started from, and then goes on from where it was."""
    installed = []
    worker = refit.Worker(service.address, install=lambda version: installed.append(version.number))
    follower = threading.Thread(target=worker.follow)
    follower.start()
    try:
        for number, epoch in ((47, 1), (1, 2), (48, 2)):
            publish(service.address, number, trainer_epoch=epoch)
            worker.wait_for(number, 20, trainer_epoch=epoch)
    finally:
        worker.stop()
        follower.join()
    assert installed == [47, 1, 48]


def test_a_counter_that_starts_anew_is_refused_and_the_way_out_is_named(service):
    publish(service.address, 57)
    with pytest.raises(refit.FailedPrecondition, match="57; expected a larger number, or a larger trainer_epoch"):
        publish(service.address, 1)


def test_a_counter_that_has_passed_the_old_one_is_followed():
    """Of one epoch, with a service that remembers nothing: 50 of the old run, and then 51 of the new one."""
    service = refit.serve(memory="64MiB")
    installed = []
    worker = refit.Worker(service.address, install=lambda version: installed.append(version.number))
    follower = threading.Thread(target=worker.follow)
    follower.start()
    try:
        publish(service.address, 50)
        worker.wait_for(50, 20)
        service = restarted(service)
        publish(service.address, 1)
        eventually(lambda: worker.of_other_run)
        publish(service.address, 51)
        assert refit.Publisher(service.address).wait_for_workers(51, all=True, timeout=20) == 1
    finally:
        worker.stop()
        follower.join()
        service.close()
    assert installed == [50, 51]


def test_two_refits_at_once_never_end_with_the_older_one(service):
    for number in (6, 7):
        publish(service.address, number)
    installed = []
    worker = refit.Worker(service.address, install=lambda version: installed.append(version.number))
    refused = []

    def take(number):
        try:
            worker.refit(number)
        except refit.FailedPrecondition as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take, args=(number,)) for number in (7, 6, 7, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert installed[-1] == 7 and worker.installed == 7 and installed == sorted(installed)
    assert all("older than version 7" in message for message in refused)


def test_nothing_goes_on_above_the_largest_epoch(service):
    from refit.integrations.shared.runs import begin_run

    assert begin_run(service.address, 5, model="default") == (1, 5)
    publish(service.address, 9, trainer_epoch=2**64 - 1)
    with pytest.raises(refit.FailedPrecondition, match="nothing can go on above that"):
        begin_run(service.address, 5, model="default")
