"""A server of two tensor-parallel ranks: both have a version or neither has."""

from __future__ import annotations

import pathlib
from typing import Iterator

import pytest
from vllm_models import KINDS, Family
from vllm_server import Server, Service, free_port


class Pair:
    def __init__(self, family: Family, server: Server, service: Service, failing: pathlib.Path):
        self.family, self.server, self.service = family, server, service
        self.failing = failing  # while it is there, pulls fail on the failing rank


@pytest.fixture(
    scope="module",
    params=[(kind, rank) for kind in KINDS for rank in (0, 1)],
    ids=lambda param: f"{param[0]}-rank{param[1]}",
)
def pair(request: pytest.FixtureRequest, folder: pathlib.Path) -> Iterator[Pair]:
    kind, rank = request.param
    family = Family(kind, folder)
    service = Service(folder)
    failing = folder / f"failing_{kind}_{rank}"
    server = Server(
        family.path,
        folder / f"{kind}_{rank}.log",
        *("--weight-transfer-config", '{"backend": "refit"}', "-tp", "2", "--distributed-executor-backend", "mp"),
        environment={"REFIT_TEST_FAILING_RANK": str(rank), "REFIT_TEST_FAILING_FILE": str(failing)},
    )
    yield Pair(family, server, service, failing)
    server.end()
    service.end()


def test_both_or_none(pair: Pair) -> None:
    family, server, service = pair.family, pair.server, pair.service
    family.check_is(0, server.fingerprint())
    assert not server.init(f"127.0.0.1:{free_port()}", channel={"connect_timeout": 1}).is_good
    assert not server.init(service.address, timeot=3).is_good
    assert server.init(service.address).is_good
    for number in (1, 2):
        service.publish(family, number)
        assert server.update(number, str(number)).is_good
        family.check_is(number, server.fingerprint())
    before = server.fingerprint()

    service.publish(family, 3)
    pair.failing.touch()
    answer = server.update(3)
    assert not answer.is_good and "as the test wants it" in answer.text, answer
    assert server.fingerprint() == before
    pair.failing.unlink()
    # At once, without a finish or another init: the executor's answers are still those to its calls.
    assert server.update(3, "3").is_good
    family.check_is(3, server.fingerprint())

    answer = server.update(77)
    assert not answer.is_good and "77" in answer.text, answer
    family.check_is(3, server.fingerprint())
    service.publish(family, 4)
    answer = server.update(4, "4")
    assert answer.is_good, answer
    family.check_is(4, server.fingerprint())
    assert server.get("/weight_info") == {"weight_version": "4"}
