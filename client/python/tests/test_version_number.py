"""Version numbers as trainers have them: NumPy's and torch's are numbers; 3.0 and "3" are none, and that is said."""

import asyncio

import pytest

import refit
from conftest import f32


class Three:
    """A whole number of somebody's own."""

    def __index__(self):
        return 3


def whole_numbers():
    yield "of one's own", Three()
    try:
        import numpy

        yield "NumPy's", numpy.int64(3)
        yield "NumPy's array", numpy.array(3, dtype="uint8")
    except ImportError:
        pass
    try:
        import torch

        yield "torch's", torch.tensor(3)
    except ImportError:
        pass


NO_NUMBERS = [3.0, "3", "latest", None, True, -1, 2**64, [3], float("nan")]


@pytest.mark.parametrize("number", [pytest.param(number, id=kind) for kind, number in whole_numbers()])
def test_whole_numbers_of_any_kind_are_taken(service, number):
    publisher = refit.Publisher(service.address, adapter="identity")
    with publisher.version(number, trainer_epoch=number) as version:
        version.push({"w": f32(1)})
    assert (version.number, version.info.version, version.info.trainer_epoch) == (3, 3, 3)
    sub = refit.Subscriber(service.address)
    assert sub.pull(number, trainer_epoch=number, installed=number).number == 3
    worker = refit.Worker(service.address, install=lambda version: None)
    assert worker.refit(number, trainer_epoch=number).version == 3
    worker.wait_for(number, timeout=5)
    with service.version(4, adapter="identity", trainer_epoch=number) as version:
        version.push({"w": f32(2)})
    assert next(sub.watch(after=number, trainer_epoch=number)).version == 4


@pytest.mark.parametrize("number", NO_NUMBERS, ids=repr)
def test_what_is_no_whole_number_is_refused_at_once(service, number):
    publisher = refit.Publisher(service.address, adapter="identity")
    sub = refit.Subscriber(service.address)
    worker = refit.Worker(service.address, install=lambda version: None)
    calls = [
        publisher.version,
        service.version,
        refit.aio.Publisher(service.address).version,
        publisher.release,
        publisher.wait_for_workers,
        lambda number: publisher.abort(number, "no more"),
        lambda number: worker.wait_for(number, timeout=5),
    ]
    if number is not None:  # the newest one, or whichever
        calls += [worker.refit, lambda number: next(sub.watch(after=number))]
        calls += [lambda number: sub.pull(1, installed=number)]
    if number is not None and number != "latest":
        calls += [sub.pull, lambda number: asyncio.run(refit.aio.Subscriber(service.address).pull(number))]
    for call in calls:
        with pytest.raises(refit.InvalidArgument, match="^INVALID_ARGUMENT: version .*number"):
            call(number)
    for begin in (publisher.version, service.version, refit.aio.Publisher(service.address).version):
        with pytest.raises(refit.InvalidArgument, match="version 0: expected a whole number from 1"):
            begin(0)
    with pytest.raises(refit.InvalidArgument, match="trainer_epoch .*: expected a whole number"):
        publisher.version(1, trainer_epoch="two")
