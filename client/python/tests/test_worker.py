"""Pulls and workers: verified, staged, installed in one step; what fails leaves the old version in use."""

import threading
import time

import pytest

import refit
from conftest import descriptors, f32


def publish(service, number, tensors=None, **options):
    with service.version(number, adapter="identity", **options) as version:
        version.push(tensors or {"w": f32(number, number), "layers.0.b": f32(number)})


def content(version):
    return {tensor.name: bytes(memoryview(tensor.memory)) for tensor in version.tensors}


def test_pull_selects(service, transport):
    publish(service, 1, {f"layers.{i}.w": memoryview(bytes(range(12))).cast("B", (3, 4)) for i in range(4)})
    sub = refit.Subscriber(service.address, transport=transport)
    assert [tensor.name for tensor in sub.pull(1, filter=r"layers\.[12]").tensors] == ["layers.1.w", "layers.2.w"]
    assert list(content(sub.pull(names=["layers.3.w"]))) == ["layers.3.w"]
    (cut,) = sub.pull(names=["layers.0.w"], rules=[refit.Rule(dimension=1, part=1, parts=2)]).tensors
    assert (cut.shape, cut.full_shape, cut.offsets) == ((3, 2), (3, 4), (0, 2))
    assert bytes(memoryview(cut.memory)) == bytes([2, 3, 6, 7, 10, 11])
    (box,) = sub.pull(names=["layers.0.w"], boxes={"layers.0.w": refit.Box([1, 1], [1, 2])}).tensors
    assert bytes(memoryview(box.memory)) == bytes([5, 6])


def test_iterates_names_and_tensors(service):
    publish(service, 1)
    version = refit.Subscriber(service.address).pull()
    assert [name for name, _ in version] == ["w", "layers.0.b"] == list(version.state_dict())
    assert len(version) == 2 and version.number == 1 and "default/1" in repr(version)
    with pytest.raises(KeyError):
        version["no such"]


def test_out_is_filled_in_place(service, transport):
    publish(service, 1, {"w": f32(*range(1000)), "b": f32(7)})
    out = {"w": memoryview(bytearray(4000)).cast("f"), "b": memoryview(bytearray(4)).cast("f"), "more": bytearray(1)}
    version = refit.Subscriber(service.address, transport=transport).pull(out=out)
    assert out["w"].tolist() == list(range(1000)) and out["b"].tolist() == [7]
    assert version.tensors[0].memory.address == refit._refit.read_buffer(out["w"])[0]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda out: out.pop("b"), "has none of this name"),
        (lambda out: out.update(b=memoryview(bytearray(8)).cast("f")), r"`out` has F32 \[2\]"),
        (lambda out: out.update(b=memoryview(bytearray(4)).cast("i")), r"`out` has I32 \[1\]"),
        (lambda out: out.update(b=memoryview(bytes(4)).cast("f")), "read-only"),
    ],
    ids=["missing", "misshapen", "mistyped", "read-only"],
)
def test_out_is_checked_before_it_is_written(service, change, message):
    publish(service, 1, {"w": f32(1, 2), "b": f32(7)})
    out = {"w": memoryview(bytearray(8)).cast("f"), "b": memoryview(bytearray(4)).cast("f")}
    change(out)
    with pytest.raises(refit.InvalidArgument, match=message) as error:
        refit.Subscriber(service.address).pull(out=out)
    assert error.value.tensor == "b" and not error.value.torn
    assert out["w"].tolist() == [0, 0]


def test_a_pull_whose_version_is_aborted_says_whether_out_is_torn(service):
    version = service.version(1, adapter="identity", declare={"a": ("U8", [8 << 20]), "b": ("f32", [1])})
    out = {"a": bytearray(8 << 20), "b": memoryview(bytearray(4)).cast("f")}
    sub = refit.Subscriber(service.address, transport="wire")
    failed = []

    def pull():
        try:
            sub.pull(1, out=out)
        except refit.RefitError as error:
            failed.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    version.push({"a": b"\1" * (8 << 20)})
    while out["a"][-1] == 0:
        time.sleep(0.001)
    version.abort("changed my mind")
    thread.join()
    assert isinstance(failed[0], refit.Aborted) and failed[0].torn and "changed my mind" in str(failed[0])


def test_progress_is_told(service):
    publish(service, 1)
    told = []
    refit.Subscriber(service.address).pull(progress=lambda *done: told.append(done))
    assert told[0] == (0, 12) and told[-1] == (12, 12)


def test_a_progress_callback_that_raises_ends_the_pull_and_the_next_one_works(service):
    publish(service, 1)
    sub = refit.Subscriber(service.address)
    with pytest.raises(ZeroDivisionError):
        sub.pull(progress=lambda done, total: 1 / 0)
    assert len(sub.pull()) == 2


def test_versions_that_are_not_there(service):
    sub = refit.Subscriber(service.address)
    with pytest.raises(refit.NotFound):
        sub.pull()
    publish(service, 3)
    with pytest.raises(refit.NotFound) as error:
        sub.pull(2)
    assert error.value.version == 2 and isinstance(error.value, LookupError)
    with pytest.raises(refit.InvalidArgument, match="newest"):
        sub.pull("newest")
    with pytest.raises(refit.InvalidArgument):
        sub.pull(filter="(")


def test_a_pull_ends_when_the_service_closes(service):
    service.version(1, adapter="identity", declare={"w": ("f32", [1])})
    sub = refit.Subscriber(service.address)
    failed = []

    def pull():
        try:
            sub.pull(1, resume_within=0)
        except refit.RefitError as error:
            failed.append(error.code)

    thread = threading.Thread(target=pull)
    thread.start()
    time.sleep(0.2)
    service.close(grace=0)
    thread.join(20)
    assert failed and failed[0] in ("UNAVAILABLE", "CANCELLED", "ABORTED", "FAILED_PRECONDITION")


def test_watch_tells_every_version(service):
    states = []
    sub = refit.Subscriber(service.address)
    publish(service, 1)
    for info in sub.watch():
        states.append((info.version, info.state))
        if info.version == 2 and info.state == "committed":
            break
        if len(states) == 1:
            publish(service, 2)
    assert states[0] == (1, "committed") and states[-1] == (2, "committed")


def test_a_worker_follows_and_rolls_back(service):
    installed = []
    worker = refit.Worker(service.address, install=lambda version: installed.append((version.number, content(version))))
    assert worker.installed is None and not worker.torn and worker.name
    publish(service, 1)
    assert worker.refit().version == 1
    publish(service, 2)
    worker.follow(until=lambda: worker.installed == 2)
    assert worker.roll_back().version == 1
    assert [number for number, _ in installed] == [1, 2, 1] and installed[0] == installed[2]
    with pytest.raises(refit.DeadlineExceeded):
        worker.wait_for(9, timeout=0.05)


def test_an_install_that_raises_leaves_the_old_version_in_use(service):
    fails = [False]
    errors = []

    def install(version):
        if fails[0]:
            raise ValueError("the engine is full")

    worker = refit.Worker(service.address, install=install, on_error=errors.append)
    publish(service, 1)
    worker.refit()
    fails[0] = True
    publish(service, 2)
    with pytest.raises(ValueError, match="full"):
        worker.refit()
    assert worker.installed == 1
    publish(service, 3)
    thread = threading.Thread(target=worker.follow)
    thread.start()
    while not errors:
        time.sleep(0.001)
    assert worker.installed == 1 and isinstance(errors[0], ValueError)
    fails[0] = False
    publish(service, 4)
    worker.wait_for(4, timeout=20)
    worker.stop()
    thread.join()


def test_a_worker_in_place_is_torn_meanwhile(service):
    weights = {"w": memoryview(bytearray(8)).cast("f"), "layers.0.b": memoryview(bytearray(4)).cast("f")}
    seen = []
    worker = refit.Worker(service.address, in_place=weights, install=lambda version: seen.append(worker.torn))
    publish(service, 1)
    worker.refit()
    assert weights["w"].tolist() == [1, 1] and not worker.torn and seen == [True]


def test_callbacks_run_in_the_calling_thread(service):
    publish(service, 1)
    here = []
    worker = refit.Worker(service.address, install=lambda version: here.append(threading.current_thread()))
    worker.refit()
    thread = threading.Thread(
        target=lambda: refit.Subscriber(service.address).follow(
            install=lambda version: here.append(threading.current_thread()), until=lambda: True
        )
    )
    thread.start()
    thread.join()
    assert here == [threading.main_thread(), thread]


def test_many_threads_pull_at_once(service):
    publish(service, 1, {str(i): f32(i) for i in range(200)})
    sub = refit.Subscriber(service.address)
    got = []
    threads = [threading.Thread(target=lambda: got.append(len(sub.pull()))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [200] * 16


def test_nothing_stays_open(service):
    publish(service, 1, {"w": b"x" * (4 << 20)})
    for _ in range(3):
        refit.Subscriber(service.address).pull()
    before = descriptors()
    for _ in range(20):
        sub = refit.Subscriber(service.address)
        sub.pull()
        with pytest.raises(refit.NotFound):
            sub.pull(99)
        del sub
    deadline = time.monotonic() + 10
    while descriptors() > before + 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert descriptors() <= before + 2


def test_pulled_memory_outlives_everything():
    with refit.serve(memory="256MiB") as service:
        publish(service, 1, {"w": b"\7" * (4 << 20)})
        view = memoryview(refit.Subscriber(service.address).pull().tensors[0].memory)
    assert bytes(view) == b"\7" * (4 << 20)


def test_what_a_worker_has_says_what_it_is(service):
    subscriber = refit.Subscriber(service.address, model="policy")
    assert repr(subscriber) == f"refit.Subscriber('{service.address}', model='policy')"
    worker = refit.Worker(service.address, install=print, model="policy", worker="w3")
    assert repr(worker) == f"refit.Worker('{service.address}', model='policy', name='{worker.name}')"
    assert "w3" in worker.name
