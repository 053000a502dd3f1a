"""refit.integrations.shared.ahead: versions pulled beside an engine that says itself when one is installed."""

from __future__ import annotations

import threading
import time
from typing import Any, Iterator

import pytest
from integrations_support import publish, torch

import refit
from refit.integrations.shared.ahead import Ahead


def tensors(version: int) -> Any:
    return {"w": torch.full((1000,), float(version))}


@pytest.fixture
def ahead(service: Any) -> Iterator[Ahead]:
    made = Ahead(service.address)
    yield made
    made.close()


def put(service: Any, version: int, **options: Any) -> None:
    publish(service.address, version, tensors(version), **options)


def install(ahead: Ahead, version: int, deadline: float = 30) -> None:
    with ahead.take(version, None, deadline) as pulled:
        assert torch.equal(pulled["w"], tensors(version)["w"])


def wait(service: Any, version: int, phase: str) -> None:
    with refit.Publisher(service.address) as publisher:
        assert publisher.wait_for_workers(version, all=True, phase=phase, timeout=30) == 1


def connected(service: Any) -> int:
    with refit.Publisher(service.address) as publisher:
        return publisher.connected_workers()


def test_the_fleet_has_one_worker_which_tells_what_the_engine_does(service: Any, ahead: Ahead) -> None:
    for version in (1, 2):
        put(service, version)
        wait(service, version, "staged")
        with pytest.raises(refit.DeadlineExceeded), refit.Publisher(service.address) as publisher:
            publisher.wait_for_workers(version, timeout=0)
        install(ahead, version)
        wait(service, version, "installed")
        assert connected(service) == 1
    ahead.close()
    ahead.close()
    assert connected(service) == 0


def test_what_the_engine_could_not_install_is_told_and_may_be_taken_again(service: Any, ahead: Ahead) -> None:
    put(service, 1)
    wait(service, 1, "staged")
    with pytest.raises(KeyError), ahead.take(1, None, 30):
        raise KeyError("the model does not like it")
    with pytest.raises(refit.DeadlineExceeded, match="does not like it"), refit.Publisher(service.address) as publisher:
        publisher.wait_for_workers(1, all=True, timeout=1)
    install(ahead, 1)
    wait(service, 1, "installed")


def test_a_step_back_is_told_too(service: Any, ahead: Ahead) -> None:
    for version in (1, 2):
        put(service, version)
        wait(service, version, "staged")
        install(ahead, version)
    install(ahead, 1)
    with pytest.raises(refit.DeadlineExceeded), refit.Publisher(service.address) as publisher:
        publisher.wait_for_workers(2, all=True, timeout=0)  # it is not in use any more
    put(service, 3)
    wait(service, 3, "staged")
    install(ahead, 3)
    wait(service, 3, "installed")


def test_a_version_that_is_late_comes_beside_the_engine(service: Any, ahead: Ahead) -> None:
    with refit.Publisher(service.address, adapter="identity") as publisher:
        with publisher.version(1, declare=tensors(1)) as version:
            began = time.monotonic()
            with pytest.raises(refit.DeadlineExceeded, match="version 1.*ask again") as raised:
                install(ahead, 1, deadline=0.2)
            assert raised.value.version == 1 and time.monotonic() - began < 5
            version.push(tensors(1))
    wait(service, 1, "staged")
    install(ahead, 1)
    with pytest.raises(refit.NotFound):
        install(ahead, 77)


def test_an_update_that_waits_takes_what_comes_first(service: Any, ahead: Ahead) -> None:
    with refit.Publisher(service.address, adapter="identity") as publisher:
        with publisher.version(1, declare=tensors(1)) as version:
            updates = [threading.Thread(target=install, args=(ahead, 1))]
            updates[0].start()
            version.push(tensors(1))
    updates[0].join(30)
    assert not updates[0].is_alive()
    wait(service, 1, "installed")


def test_it_outlives_the_service() -> None:
    with refit.serve() as first:
        address = first.address
        ahead = Ahead(address)
        publish(address, 1, tensors(1))
        install(ahead, 1)
    with pytest.raises(refit.Unavailable):
        install(ahead, 2)
    with refit.serve(address) as second:
        publish(second.address, 2, tensors(2))
        install(ahead, 2)
        wait(second, 2, "installed")
        ahead.close()


def test_only_what_is_asked_for(service: Any) -> None:
    ahead = Ahead(service.address, is_ahead=False)
    put(service, 1)
    assert connected(service) == 0
    install(ahead, 1)
    ahead.close()
    with pytest.raises(refit.Unavailable, match="127.0.0.1:1"):
        Ahead("127.0.0.1:1", is_ahead=False, channel={"connect_timeout": 0.2})


def test_what_was_not_taken_gives_way(service: Any, ahead: Ahead) -> None:
    for version in (1, 2, 3):
        put(service, version)
        wait(service, version, "staged")  # so that of the last, if it was held, is not held any more
    install(ahead, 3)
    wait(service, 3, "installed")
