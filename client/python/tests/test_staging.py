"""From a device to the host, through an interface that a machine without a device tests too."""

import pytest

import refit
from refit.staging import on_host

torch = pytest.importorskip("torch")


class OnDevice(torch.Tensor):
    """Says that it is elsewhere."""

    @property
    def device(self):
        return torch.device("cuda", 0)


def on_device(tensor):
    return tensor.as_subclass(OnDevice)


def test_the_next_copy_is_under_way_while_the_last_is_used():
    events = []

    def begin(tensor):
        copy = tensor.as_subclass(torch.Tensor).clone()
        events.append(f"begin {int(copy[0])}")

        def wait():
            events.append(f"end {int(copy[0])}")
            return copy

        return wait

    pairs = [(str(i), on_device(torch.tensor([i]))) for i in range(3)]
    for name, host in on_host(pairs, begin):
        events.append(f"use {name}")
        assert host.is_own and host.kept(name) is host
    assert events == [
        "begin 0", "begin 1", "end 0", "use 0", "begin 2", "end 1", "use 1", "end 2", "use 2",
    ]  # fmt: skip


def test_what_is_here_is_not_copied():
    tensor = torch.zeros(2)
    ((name, host),) = on_host([("w", tensor)])
    assert name == "w" and not host.is_own and host.memory.address == tensor.data_ptr()


def test_what_is_here_may_be_used_before_the_next_is_asked_for():
    events = []

    def begin(tensor):
        events.append("begin")
        return lambda: tensor.as_subclass(torch.Tensor).clone()

    def pairs():
        for name, tensor in [("a", on_device(torch.ones(1))), ("b", torch.ones(1)), ("c", torch.ones(1))]:
            events.append(f"give {name}")
            yield name, tensor

    for name, _ in on_host(pairs(), begin):
        events.append(f"use {name}")
    assert events == ["give a", "begin", "give b", "use a", "use b", "give c", "use c"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_without_cuda_a_tensor_that_is_on_it_is_named(service):
    with pytest.raises(refit.InvalidArgument) as error:
        list(on_host([("a", torch.zeros(1)), ("w", on_device(torch.zeros(1)))]))
    assert error.value.tensor == "w" and "no CUDA" in str(error.value)
    with pytest.raises(refit.InvalidArgument, match="not in host memory"):
        refit.Subscriber(service.address).pull(out={"w": on_device(torch.zeros(1))})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")
def test_cuda_there_and_back(service):
    sent = {str(i): torch.randn(1 << 20, device="cuda").bfloat16() for i in range(5)}
    with refit.Publisher(service.address, adapter="identity").version(1) as version:
        version.push(sent)
    for name, tensor in refit.Subscriber(service.address).pull():
        assert torch.equal(tensor, sent[name].cpu())
