"""A worker that has the addresses of several services."""

import pytest

import refit
from conftest import f32


def serve(zone=None):
    service = refit.serve(memory="64MiB", zone=zone)
    with service.version(1, adapter="identity") as version:
        version.push({"a": f32(7)})
    return service


def test_goes_to_the_next_service_and_says_so():
    with serve() as first, serve() as second:
        sub = refit.Subscriber(f"{first.address},{second.address}")
        version = sub.pull(copy=True)
        assert (version.address, version.moved) == (first.address, 0)
        first.close()
        version = sub.pull(copy=True)
        assert (version.address, version.moved) == (second.address, 1)


def test_the_own_zone_comes_first():
    with serve("a") as first, serve("b") as second:
        addresses = f"{first.address},{second.address}"
        assert refit.Subscriber(addresses, zone="b").pull(copy=True).address == second.address
        assert refit.Subscriber(addresses).pull(copy=True).address == first.address


def test_a_worker_says_where_its_version_came_from():
    with serve("a") as first, serve("b") as second:
        came_from = []
        worker = refit.Worker(
            f"{first.address},{second.address}", zone="b", install=lambda version: came_from.append(version.address)
        )
        worker.refit()
        assert came_from == [second.address]


def test_a_trainer_has_one_service():
    with pytest.raises(refit.InvalidArgument, match="a push goes to the one"):
        refit.Publisher("127.0.0.1:1,127.0.0.1:2")


@pytest.mark.parametrize("client", [refit.Subscriber, refit.Publisher])
def test_a_service_that_is_not_there_is_the_only_error_shown(client):
    with pytest.raises(refit.Unavailable, match="127.0.0.1:1") as caught:
        client("127.0.0.1:1", connect_timeout=0.2)
    assert caught.value.__context__ is None
