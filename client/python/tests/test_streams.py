"""One version over several connections."""

import numpy as np
import pytest

import refit


@pytest.fixture
def service():
    with refit.serve("127.0.0.1:0", memory="1GiB") as service:
        yield service


def make_state(seed):
    rng = np.random.default_rng(seed)
    return {f"layer.{i}.weight": rng.integers(0, 2**31, (997, 3001), dtype=np.int32) for i in range(5)}


@pytest.mark.parametrize("streams", [1, 3, np.int64(2), "auto"])
def test_the_same_version(service, streams):
    state = make_state(1)
    with refit.Publisher(service.address, adapter="identity", transport="wire", streams=streams) as publisher:
        for number in (1, 2):
            with publisher.version(number) as version:
                version.push(state)
    subscriber = refit.Subscriber(service.address, transport="wire")
    pulled = subscriber.pull(streams=streams)
    assert {name: np.asarray(tensor).tobytes() for name, tensor in pulled} == {
        name: array.tobytes() for name, array in state.items()
    }
    if streams != "auto":
        assert pulled.streams == streams


def test_into_own_memory(service):
    with refit.Publisher(service.address, adapter="identity", transport="wire", streams=2) as publisher:
        with publisher.version(1) as version:
            version.push(make_state(1))
    out = {name: np.zeros_like(array) for name, array in make_state(1).items()}
    pulled = refit.Subscriber(service.address, transport="wire").pull(out=out, streams=2)
    assert pulled.streams == 2
    for name, array in make_state(1).items():
        assert (out[name] == array).all()


@pytest.mark.parametrize("streams", [0, -1, 65, True, 2.0, "many", None])
def test_what_is_no_number_of_connections(service, streams):
    with pytest.raises(refit.InvalidArgument, match="number of connections"):
        refit.Publisher(service.address, streams=streams)
    with pytest.raises(refit.InvalidArgument, match="number of connections"):
        refit.Subscriber(service.address).pull(streams=streams)


def test_ranks_are_connections_already(service):
    publisher = refit.Publisher(service.address, adapter="identity", streams=2)
    with pytest.raises(refit.InvalidArgument, match="connection already"):
        with publisher.version(1, rank=0, world=2) as version:
            version.push(make_state(1))
