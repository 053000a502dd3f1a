"""Versions are transactions: whole, or not at all."""

import threading

import pytest

import refit
from conftest import f32


@pytest.fixture(params=["wire", "in process"])
def open_version(service, request):
    """Opens a version of a model of plain tensors, over the wire or within the process."""
    if request.param == "wire":
        publisher = refit.Publisher(service.address, adapter="identity", transport="wire")
        return publisher.version
    return lambda number, **options: service.version(number, adapter="identity", **options)


def pulled(service, **options):
    version = refit.Subscriber(service.address).pull(**options)
    return {tensor.name: bytes(memoryview(tensor.memory)) for tensor in version.tensors}


def test_commits_at_the_end_of_the_block(service, open_version):
    with open_version(7) as version:
        version.push({"w": f32(1, 2)})
        assert version.info.state == "open" and version.info.version == 7
    assert version.info.state == "committed" and version.info.manifest_digest is not None
    assert pulled(service) == {"w": f32(1, 2).tobytes()}


def test_an_exception_in_the_block_aborts_and_goes_on(service, open_version):
    with pytest.raises(KeyError):
        with open_version(1) as version:
            version.push({"w": f32(1)})
            raise KeyError("the trainer's own")
    with pytest.raises(refit.FailedPrecondition, match="KeyError"):
        refit.Subscriber(service.address).pull(1)
    with pytest.raises(refit.FailedPrecondition, match="over"):
        version.push({"w": f32(1)})
    with open_version(2) as version:
        version.push({"w": f32(2)})
    assert pulled(service) == {"w": f32(2).tobytes()}


def test_in_parts_in_any_order_from_a_generator(service, open_version):
    with open_version(1, declare={"a": ("f32", [2]), "b": f32(0), "c": ("U8", (3,))}) as version:
        version.push({"c": b"abc"})
        version.push((name, tensor) for name, tensor in [("b", f32(5)), ("a", f32(1, 2))])
    assert pulled(service) == {"a": f32(1, 2).tobytes(), "b": f32(5).tobytes(), "c": b"abc"}


def test_a_tensor_that_never_came_is_named_at_the_end(service, open_version):
    with pytest.raises(refit.FailedPrecondition) as error:
        with open_version(1, declare={"a": ("f32", [2]), "b": ("f32", [1])}) as version:
            version.push({"a": f32(1, 2)})
    assert error.value.tensor == "b"
    with pytest.raises(refit.RefitError):
        pulled(service)


def test_undeclared_and_misshapen_tensors_are_named(service, open_version):
    with pytest.raises(refit.NotFound) as error:
        with open_version(1, declare={"a": ("f32", [2])}) as version:
            version.push({"b": f32(1)})
    assert (error.value.tensor, error.value.version) == ("b", 1)
    with pytest.raises(refit.InvalidArgument) as error:
        with open_version(2, declare={"a": ("f32", [2])}) as version:
            version.push({"a": f32(1, 2, 3)})
    assert error.value.tensor == "a" and "[3]" in str(error.value)


def test_an_empty_block_is_an_error(service, open_version):
    with pytest.raises(refit.FailedPrecondition, match="nothing was pushed"):
        with open_version(1):
            pass


def test_numbers_grow(service, open_version):
    with open_version(5) as version:
        version.push({"w": f32(5)})
    with pytest.raises(refit.AlreadyExists) as error:
        with open_version(5) as version:
            version.push({"w": f32(5)})
    assert error.value.version == 5


def test_excluded_names_need_be_no_tensors(service, open_version):
    with open_version(1, exclude_key_regex=r".*_extra_state.*") as version:
        version.push({"w": f32(1), "layer._extra_state": None})
    assert list(pulled(service)) == ["w"]


def test_bad_options_say_what_they_are(service, open_version):
    with pytest.raises(refit.InvalidArgument, match="F99"):
        open_version(1, dtype="F99")
    with pytest.raises(refit.InvalidArgument):
        with open_version(1, dtype="int64") as version:
            version.push({"w": f32(1)})


def test_progress_ends_at_all(service, open_version):
    told = []
    with open_version(1) as version:
        version.push({str(i): f32(i) for i in range(3000)}, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (12000, 12000) and len(told) >= 2 and told == sorted(told)


def test_a_bar_is_shown_where_there_is_one(service, open_version):
    with open_version(1) as version:
        version.push({"w": f32(1)}, progress=True)
    assert len(refit.Subscriber(service.address).pull(progress=True)) == 1


def test_a_callback_that_raises_ends_the_push(service, open_version):
    def fail(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        with open_version(1) as version:
            version.push({"w": f32(1)}, progress=fail)
    with pytest.raises(refit.RefitError):
        pulled(service)


def test_ranks_push_one_version(service):
    publishers = [refit.Publisher(service.address, adapter="identity", publisher=f"rank {rank}") for rank in range(2)]
    waits = []

    def push(rank):
        with publishers[rank].version(1, rank=rank, world=2, on_waiting=waits.append) as version:
            version.push({"w": f32(1, 2, 3)})

    ranks = [threading.Thread(target=push, args=(rank,)) for rank in range(2)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    assert pulled(service) == {"w": f32(1, 2, 3).tobytes()}


def test_waits_for_workers(service):
    publisher = refit.Publisher(service.address, adapter="identity")
    with publisher.version(1, hold_installs=True) as version:
        version.push({"w": f32(1)})
    installed = []
    worker = refit.Worker(service.address, install=lambda version: installed.append(version.number), worker="w0")
    thread = threading.Thread(target=worker.follow)
    thread.start()
    try:
        assert publisher.wait_for_workers(1, phase="staged", timeout=20) == 1
        assert installed == []
        with pytest.raises(refit.DeadlineExceeded, match="w0"):
            publisher.wait_for_workers(1, all=True, timeout=0.1)
        publisher.release(1)
        assert publisher.wait_for_workers(1, timeout=20) == 1
        assert installed == [1] and worker.installed == 1
    finally:
        worker.stop()
        thread.join()


def test_aborts_from_outside(service, open_version):
    version = open_version(1, declare={"a": ("f32", [1])})
    refit.Publisher(service.address).abort(1, "no more")
    with pytest.raises(refit.RefitError, match="no more"):
        version.push({"a": f32(1)})
        version.commit()


def test_no_service_is_unavailable_and_says_where():
    for connect in (refit.Publisher, refit.Subscriber, lambda *a, **k: refit.Worker(*a, install=print, **k)):
        with pytest.raises(refit.Unavailable, match="127.0.0.1:1") as error:
            connect("127.0.0.1:1", connect_timeout=0.3)
        assert error.value.code == "UNAVAILABLE" and isinstance(error.value, ConnectionError)


def test_a_service_that_closes_ends_a_push(service):
    publisher = refit.Publisher(service.address, adapter="identity", transport="wire")
    version = publisher.version(1, declare={"a": ("f32", [1]), "b": ("f32", [1])})
    version.push({"a": f32(1)})
    service.close(grace=0)
    with pytest.raises(refit.RefitError):
        version.push({"b": f32(1)})
        version.commit()
    with pytest.raises(refit.FailedPrecondition, match="is closed; start another"):
        service.version(2)


def test_service_options_are_checked():
    with pytest.raises(refit.InvalidArgument, match="size"):
        refit.serve(memory="much")
    with pytest.raises(refit.InvalidArgument, match="retain: expected a whole number from 0 to 1000, got '-1'"):
        refit.serve(retain=-1)
    with pytest.raises(refit.InvalidArgument, match="push_idle_timeout: expected seconds"):
        refit.serve(push_idle_timeout="soon")
    with pytest.raises(refit.InvalidArgument, match=": spool= keeps committed versions, but with retain=0"):
        refit.serve(retain=0, spool="/nowhere")
    with pytest.raises(refit.InvalidArgument, match="plain"):
        refit.serve("0.0.0.0:0")
    with refit.serve() as running, pytest.raises(refit.Unavailable):
        refit.serve(running.address)


@pytest.mark.parametrize("has_declared", [False, True])
def test_a_tensor_that_was_not_declared_says_the_way_out(open_version, has_declared):
    options = {"declare": {"a": ("f32", [1])}} if has_declared else {}
    way_out = "declare= must name all tensors" if has_declared else r"open it with declare=\{name: \(dtype, shape\)"
    with pytest.raises(refit.NotFound, match=f"tensor b: it was not declared to version 1; .*{way_out}") as error:
        with open_version(1, **options) as version:
            version.push({"a": f32(1)})
            version.push({"b": f32(1)})
    assert (error.value.tensor, error.value.version) == ("b", 1)


def test_what_a_trainer_has_says_what_it_is(service):
    publisher = refit.Publisher(service.address, model="policy", adapter="identity")
    assert repr(publisher) == f"refit.Publisher('{service.address}', model='policy')"
    version = publisher.version(7)
    assert repr(version) == "refit.Version(7, not opened)"
    with version:
        version.push({"w": f32(1)})
        assert repr(version) == "refit.Version(policy/7, open)"
    assert repr(version) == "refit.Version(policy/7, committed)"
    given_up = publisher.version(8, declare={"w": ("f32", [1])})
    given_up.abort("enough")
    assert repr(given_up) == "refit.Version(policy/8, over, not known to be committed)"
    assert repr(service) == f"refit.Service('{service.address}', running)"
    service.close()
    assert repr(service) == f"refit.Service('{service.address}', closed)"


def test_a_version_of_a_service_that_was_closed_meanwhile(service):
    unopened = service.version(1, adapter="identity")
    opened = service.version(1, adapter="identity", declare={"w": ("f32", [1])})
    service.close(grace=0)
    with pytest.raises(refit.FailedPrecondition, match="is closed"):
        unopened.push({"w": f32(1)})
    with pytest.raises(refit.FailedPrecondition, match=f"default/1: the service at {service.address} is closed"):
        opened.push({"w": f32(1)})


def test_a_commit_to_a_service_that_was_closed_is_none(service):
    version = service.version(1, adapter="identity")
    version.push({"w": f32(1)})
    service.close(grace=0)
    with pytest.raises(refit.FailedPrecondition, match="is closed"):
        version.commit()
