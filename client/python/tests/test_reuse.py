"""A trainer that uses memory again, or frees it, while and after it is pushed: right values, or an error that names it."""

import asyncio
import contextlib
import itertools
import struct
import threading

import pytest

import refit
import refit.aio
from refit import staging
from refit.integrations.shared.sending import WeightSender

torch = pytest.importorskip("torch")

# Small ones are copied, large ones read, before the generator is asked for the next.
SIZES = [4, 1 << 19]


@pytest.fixture(params=["wire", "auto", "in process", "asyncio"])
def push(service, request):
    """Pushes tensors as a version."""

    async def push_awaited(number, tensors, **options):
        async with refit.aio.Publisher(service.address, adapter="identity", transport="wire") as publisher:
            async with publisher.version(number, **options) as version:
                await version.push(tensors)

    def push(number, tensors, **options):
        if request.param == "asyncio":
            return asyncio.run(push_awaited(number, tensors, **options))
        if request.param == "in process":
            version = service.version(number, adapter="identity", **options)
        else:
            publisher = refit.Publisher(service.address, adapter="identity", transport=request.param)
            version = publisher.version(number, **options)
        with version:
            version.push(tensors)

    return push


def declared(count, size):
    return {f"w{i}": ("F32", (size,)) for i in range(count)}


def values(service, number):
    """The one value of each F32 tensor, or all of them."""
    found = {}
    for tensor in refit.Subscriber(service.address).pull(number, copy=True).tensors:
        data = bytes(memoryview(tensor.memory))
        (value,) = struct.unpack("<f", data[:4])
        found[tensor.name] = value if data == data[:4] * (len(data) // 4) else set(memoryview(data).cast("f"))
    return found


def free(tensor):
    storage = tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage().untyped()
    storage.resize_(0)


def one_buffer(count, size):
    buffer = torch.empty(size)
    for i in range(count):
        buffer.fill_(i)
        yield f"w{i}", buffer


def freed_at_once(count, size):
    for i in range(count):
        tensor = torch.full((size,), float(i))
        yield f"w{i}", tensor
        free(tensor)


def slices_of_a_bucket(count, size):
    bucket = torch.empty(2 * size)
    for i in range(count):
        part = bucket[i % 2 * size :][:size]
        part.fill_(i)
        yield f"w{i}", part


def gathered_for_a_moment(count, size):
    """As DeepSpeed's ZeRO-3 gives a parameter back to its shards."""
    for i in range(count):
        parameter = torch.nn.Parameter(torch.full((size,), float(i)))
        yield f"w{i}", parameter
        parameter.data = torch.empty(0)


GENERATORS = [one_buffer, freed_at_once, slices_of_a_bucket, gathered_for_a_moment]


CASES = list(enumerate(itertools.product(GENERATORS, SIZES), 1))


def test_a_generator_may_use_its_memory_again(service, push):
    for number, (generator, size) in CASES:
        push(number, generator(5, size), declare=declared(5, size))
        assert values(service, number) == {f"w{i}": float(i) for i in range(5)}, (generator, size)


def test_a_mapping_that_makes_its_tensors_one_by_one(service, push):
    class Lazy(dict):
        def items(self):
            return one_buffer(3, 1 << 19)

    push(1, Lazy(), declare=declared(3, 1 << 19))
    assert values(service, 1) == {"w0": 0.0, "w1": 1.0, "w2": 2.0}


def test_without_a_declaration_reuse_is_noticed(service, push):
    for number, (generator, size) in CASES:
        with pytest.raises(refit.InvalidArgument, match="declare=") as error:
            push(number, generator(5, size))
        assert error.value.tensor in declared(5, size)
        with pytest.raises(refit.RefitError):
            values(service, number)


def test_without_a_declaration_what_torch_does_not_count_is_noticed(service, push):
    """As collectives write, and other libraries."""
    buffer = torch.empty(4)
    written = memoryview(buffer.numpy()).cast("B") if hasattr(buffer, "numpy") else None

    def gen():
        for i in range(3):
            written[:] = bytes([i]) * 16
            yield f"w{i}", buffer

    with pytest.raises(refit.InvalidArgument, match="tensor w[01]: its memory is not what it was"):
        push(1, gen())


def test_tied_weights_are_no_reuse(service, push):
    tied, other = torch.full((1 << 19,), 3.0), torch.full((4,), 1.0)
    pairs = [("w0", tied), ("w1", other), ("w2", tied), ("w3", tied[:4])]
    expected = {"w0": 3.0, "w1": 1.0, "w2": 3.0, "w3": 3.0}
    for number, given in enumerate([dict(pairs), pairs, iter(pairs)], 1):
        push(number, given)
        assert values(service, number) == expected
    push(4, iter(pairs), declare=dict(pairs))
    assert values(service, 4) == expected


def test_parameters_from_their_generator(service, push):
    model = torch.nn.Linear(3, 4)
    push(1, model.named_parameters())
    pulled = refit.Subscriber(service.address).pull(1, copy=True)
    assert all(torch.equal(pulled[name], tensor) for name, tensor in model.state_dict().items())


def test_memory_is_the_trainers_again_once_push_returns(service):
    """Over the wire gRPC borrows it, and push() waits until it has let go."""
    for number, transport in enumerate(["wire", "auto"], 1):
        publisher = refit.Publisher(service.address, adapter="identity", transport=transport)
        with publisher.version(number, declare=declared(8, 1 << 20)) as version:
            buffer = torch.empty(1 << 20)
            for i in range(8):
                buffer.fill_(i)
                version.push({f"w{i}": buffer})
            free(buffer)
        assert values(service, number) == {f"w{i}": float(i) for i in range(8)}


@pytest.mark.parametrize("given", [False, True])
def test_the_plugs_sender_copies_before_it_resumes(service, given):
    numbers = itertools.count(1)
    for _, (generator, size) in CASES:
        sender = WeightSender(bucket_size=1 << 20, declare=declared(5, size) if given else None)
        for number in itertools.islice(numbers, 2):
            asyncio.run(sender.send(service.address, number, generator(5, size)))
            assert values(service, number) == {f"w{i}": float(i) for i in range(5)}, (generator, size)


def test_arrays_of_numpy_in_one_buffer(service):
    numpy = pytest.importorskip("numpy")

    def gen():
        buffer = numpy.empty(4, "float32")
        for i in range(3):
            buffer[:] = i
            yield f"w{i}", buffer

    publisher = refit.Publisher(service.address, adapter="identity")
    with publisher.version(1, declare=declared(3, 4)) as version:
        version.push(gen())
    assert values(service, 1) == {"w0": 0.0, "w1": 1.0, "w2": 2.0}
    with pytest.raises(refit.InvalidArgument, match="declare="):
        with publisher.version(2) as version:
            version.push(gen())


def test_a_tensor_that_is_changed_while_it_is_pushed_is_noticed(service, push, monkeypatch):
    tensor = torch.zeros(1 << 20)
    append = refit.version.Version._append

    def append_to_what_changes(self, batch, until_read):
        if batch:
            tensor.add_(1)
        return append(self, batch, until_read)

    monkeypatch.setattr(refit.version.Version, "_append", append_to_what_changes)
    with pytest.raises(refit.InvalidArgument, match="tensor w: it was changed or freed while version 1 was pushed"):
        push(1, {"w": tensor})
    with pytest.raises(refit.RefitError):
        values(service, 1)


def test_copies_are_begun_in_the_callers_stream(service, push, monkeypatch):
    """Streams are a thread's own: stood in for, on a machine without a device. What a stream has still to do is done when it
    is waited for, and the copy is behind that in the stream in which it is begun."""
    thread = threading.local()
    pending = {"side": [], "default": []}
    begun = []

    def current():
        return getattr(thread, "stream", "default")

    @contextlib.contextmanager
    def side_stream():
        thread.stream = "side"
        try:
            yield
        finally:
            thread.stream = "default"

    def begin(name, tensor, _):
        if not getattr(tensor, "is_on_device", False):
            return None
        stream, host = current(), torch.empty_like(tensor)
        begun.append((threading.current_thread(), stream))
        pending[stream].append(lambda: host.copy_(tensor))

        def wait():
            for work in pending[stream]:
                work()
            pending[stream].clear()
            return host

        return wait

    monkeypatch.setattr(staging, "_begin", begin)

    def weights():
        buffer = torch.zeros(4)
        buffer.is_on_device = True
        for i in range(3):
            pending[current()].append(lambda i=i: buffer.fill_(i))
            yield f"w{i}", buffer

    with side_stream():
        push(1, weights(), declare=declared(3, 4))
    assert values(service, 1) == {"w0": 0.0, "w1": 1.0, "w2": 2.0}
    assert begun == [(threading.main_thread(), "side")] * 3
