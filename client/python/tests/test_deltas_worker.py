"""A worker uses the version in use as the base of the next one, as long as the engine, or the worker itself, keeps it."""

import array
import threading
import time

import pytest

import refit
from stepped import Model


@pytest.fixture
def model(service):
    made = Model(service)
    made.publish()
    return made


class Engine:
    """Keeps of each version what `keep` makes of it, in place of what it had."""

    def __init__(self, model, keep, **options):
        self._model, self._keep = model, keep
        self.holds = None
        self.traffic = None
        self.worker = refit.Worker(model.address, install=self._install, transport="wire", **options)

    def _install(self, version):
        assert self._model.same(version)
        self.traffic = version.traffic
        self.holds = self._keep(version)

    def refit(self):
        self.worker.refit()
        return self.traffic

    def next(self):
        self._model.step()
        return self.refit()


def _of_numpy(version):
    pytest.importorskip("numpy")
    return {tensor.name: tensor.numpy()[:1] for tensor in version.tensors}


def _of_dlpack(version):
    numpy = pytest.importorskip("numpy")
    if not hasattr(numpy, "from_dlpack"):
        pytest.skip("this NumPy has no from_dlpack")
    return [numpy.from_dlpack(tensor) for tensor in version.tensors]


def _of_torch(version):
    torch = pytest.importorskip("torch")
    if not hasattr(torch, "uint16"):
        pytest.skip("this torch has no uint16")
    return {name: tensor[1:] for name, tensor in version}


KEPT = {
    "the version": lambda version: version,
    "refit's tensors": lambda version: list(version.tensors),
    "bytes": lambda version: [memoryview(tensor.memory)[:1] for tensor in version.tensors],
    "NumPy's views": _of_numpy,
    "DLPack's": _of_dlpack,
    "torch's views": _of_torch,
}
LET_GO = {
    "nothing": lambda version: None,
    "copies": lambda version: [bytes(memoryview(tensor.memory)) for tensor in version.tensors],
    "all but one": lambda version: list(version.tensors)[:-1],
}


@pytest.mark.parametrize("keep", KEPT.values(), ids=KEPT)
def test_what_the_engine_keeps_is_the_base(model, keep):
    engine = Engine(model, keep)
    assert engine.refit().wire_bytes == model.nbytes
    for number in (2, 3, 4):
        traffic = engine.next()
        assert traffic.base_version == number - 1 and traffic.wire_bytes < model.nbytes / 40


@pytest.mark.parametrize("keep", LET_GO.values(), ids=LET_GO)
def test_what_it_lets_go_of_is_none(model, keep):
    engine = Engine(model, keep)
    engine.refit()
    traffic = engine.next()
    assert (traffic.base_version, traffic.base_refused, traffic.wire_bytes) == (None, "", model.nbytes)


@pytest.mark.parametrize("keep", LET_GO.values(), ids=LET_GO)
def test_the_worker_keeps_it_if_it_is_told_to(model, keep):
    engine = Engine(model, keep, keep_base=True)
    engine.refit()
    for number in (2, 3):
        traffic = engine.next()
        assert traffic.base_version == number - 1 and traffic.wire_bytes < model.nbytes / 40


def test_without_deltas(model):
    engine = Engine(model, KEPT["the version"], deltas=False)
    engine.refit()
    traffic = engine.next()
    assert (traffic.base_version, traffic.base_refused, traffic.wire_bytes) == (None, "", model.nbytes)


@pytest.mark.parametrize("keep_base", [False, True])
def test_an_engine_that_changes_its_tensors_is_safe(model, keep_base):
    engine = Engine(model, KEPT["the version"], keep_base=keep_base)
    engine.refit()
    memoryview(engine.holds.tensors[1].memory)[77] ^= 1  # as fused or scaled weights
    traffic = engine.next()
    assert "frozen" in traffic.base_refused
    assert engine.next().base_version == 2 and engine.traffic.base_refused == ""


def test_an_engine_that_changes_its_tensors_while_the_next_version_comes(model):
    engine = Engine(model, KEPT["the version"])
    engine.refit()
    ended = threading.Event()

    def scribble():
        while not ended.is_set():
            memory = memoryview(engine.holds.tensors[0].memory)
            memory[::4096] = bytes(len(memory[::4096]))

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(10):
            engine.next()  # whose install compares what came
    finally:
        ended.set()
        thread.join()


def test_a_failed_install_leaves_the_old_base(model):
    engine = Engine(model, KEPT["the version"])
    engine.refit()
    keep, engine._keep = engine._keep, lambda version: 1 / 0
    with pytest.raises(ZeroDivisionError):
        engine.next()
    engine._keep = keep
    assert engine.refit().base_version == 1 and engine.traffic.wire_bytes < model.nbytes / 40


def test_a_step_back_costs_what_has_changed(model):
    engine = Engine(model, KEPT["the version"])
    engine.refit()
    values = {name: value[:] for name, value in model.tensors.items()}
    engine.next()
    model.tensors = values
    engine.worker.roll_back()
    assert engine.traffic.base_version == 2 and engine.traffic.wire_bytes < model.nbytes / 40


def test_parts(model):
    got = []
    worker = refit.Worker(
        model.address,
        install=got.append,
        names=["weight"],
        rules=[refit.Rule(dimension=0, part=1, parts=4)],
        transport="wire",
    )
    worker.refit()
    model.step()
    worker.refit()
    assert got[1].traffic.base_version == 1
    quarter = len(model.tensors["weight"]) // 4
    assert bytes(memoryview(got[1].tensors[0].memory)) == model.tensors["weight"][quarter : 2 * quarter].tobytes()


def test_follow_and_what_a_worker_has_is_a_base_for_a_pull(model):
    got = []

    def install(version):
        got.append(version)
        if len(got) < 3:
            model.step()

    sub = refit.Subscriber(model.address, transport="wire")
    sub.follow(install, until=lambda: len(got) == 3, keep_base=True)
    assert [version.traffic.base_version for version in got] == [None, 1, 2]
    model.step()
    version = sub.pull(base=got[-1])
    assert model.same(version) and version.traffic.base_version == 3


def places(model):
    return {name: array.array(values.typecode, values.tobytes()) for name, values in model.tensors.items()}


def test_in_place_the_memory_itself_is_the_base(model):
    """It is written once all that has changed is there and verified: until then the worker is not torn."""
    weights = places(model)
    got = []

    def install(version):
        assert model.same(version)
        got.append(version.traffic)

    worker = refit.Worker(model.address, in_place=weights, install=install, transport="wire")
    worker.refit()
    for number in (2, 3):
        model.step()
        worker.refit()
        assert weights == model.tensors and not worker.torn
        assert got[-1].base_version == number - 1 and got[-1].wire_bytes < model.nbytes / 40
    weights["bias"][9] ^= 1  # the engine's own doing
    model.step()
    worker.refit()
    assert weights == model.tensors and "bias" in got[-1].base_refused


def test_in_place_a_failed_install_takes_the_changes_back(model):
    weights = places(model)
    fails = [False]
    worker = refit.Worker(
        model.address, in_place=weights, install=lambda version: 1 / 0 if fails[0] else None, transport="wire"
    )
    worker.refit()
    former = {name: values[:] for name, values in model.tensors.items()}
    model.step()
    fails[0] = True
    with pytest.raises(ZeroDivisionError):
        worker.refit()
    assert weights == former and worker.installed == 1 and not worker.torn
    fails[0] = False
    worker.refit()
    assert weights == model.tensors and worker.installed == 2


def test_in_place_without_deltas(model):
    weights = places(model)
    got = []
    worker = refit.Worker(model.address, in_place=weights, install=got.append, deltas=False, transport="wire")
    for _ in range(2):
        worker.refit()
        assert weights == model.tensors and got[-1].traffic.base_version is None
        model.step()


def test_what_was_received_in_place_is_a_base_for_a_pull(model):
    got = []
    worker = refit.Worker(model.address, in_place=places(model), install=got.append, transport="wire")
    worker.refit()
    model.step()
    version = refit.Subscriber(model.address, transport="wire").pull(base=got[0])
    assert model.same(version) and version.traffic.base_version == 1


def test_a_mapped_version_is_not_kept():
    """It would keep the service from using its memory again, and save nothing."""
    with refit.serve(memory="20MiB", retain=1) as service:
        model = Model(service)
        model.tensors = {"w": memoryview(bytes(8 << 20))}
        worker = refit.Worker(service.address, install=lambda version: None, keep_base=True, transport="shared_memory")
        model.publish()
        worker.refit()
        model.publish()  # version 1 is retired now
        model.publish()  # needs its memory


def test_a_worker_that_has_gone_keeps_nothing(model):
    engine = Engine(model, KEPT["the version"], keep_base=True)
    engine.refit()
    version = engine.holds
    engine.worker.stop()
    del engine
    assert model.same(version)


def test_a_service_that_restarts_has_no_base(service):
    model = Model(service)
    model.publish()
    engine = Engine(model, KEPT["the version"])
    engine.refit()
    address = service.address
    service.close()
    with refit.serve(address):
        model.step()
        deadline = time.monotonic() + 30
        while True:
            try:
                engine.worker.refit(2)
                break
            except refit.Unavailable:
                assert time.monotonic() < deadline
        assert "no version 1" in engine.traffic.base_refused and engine.traffic.wire_bytes == model.nbytes
