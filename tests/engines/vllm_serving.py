"""One vLLM server a model: versions arrive, and whatever goes wrong leaves it as it was.

The tests of a model share its server, in this order; each begins and ends with a whole version in use.
"""

from __future__ import annotations

import pathlib
import signal
import threading
import time
from typing import Any, Iterator, List

import pytest
import torch
from vllm_models import KINDS, PROMPTS, Family, distance, prompt
from vllm_server import Server, Service, free_port

import refit


class Engine:
    """A server, its service, and the versions of its model, which go up by one."""

    def __init__(self, family: Family, server: Server, service: Service):
        self.family, self.server, self.service = family, server, service
        self.number = 0

    def next_version(self, **options: Any) -> int:
        self.number += 1
        self.service.publish(self.family, self.number, **options)
        return self.number

    def update(self) -> int:
        """To a new version, which is then served."""
        number = self.next_version()
        answer = self.server.update(number, str(number))
        assert answer.is_good, answer
        self.family.check_is(number, self.server.fingerprint())
        return number

    def check_refuses(self, version: Any, *words: str, **info: Any) -> float:
        """The update fails in these words, and what was served is served still. Seconds it took."""
        before = self.server.fingerprint()
        began = time.monotonic()
        answer = self.server.update(version, **info)
        seconds = time.monotonic() - began
        assert not answer.is_good and all(word in answer.text for word in words), (answer, words)
        assert self.server.fingerprint() == before
        return seconds


@pytest.fixture(scope="module", params=KINDS)
def engine(request: Any, folder: pathlib.Path) -> Iterator[Engine]:
    family = Family(request.param, folder)
    service = Service(folder)
    server = Server(family.path, folder / f"{family.kind}.log", "--weight-transfer-config", '{"backend": "refit"}')
    yield Engine(family, server, service)
    server.end()
    service.end()


def test_before_the_first_version(engine: Engine) -> None:
    server = engine.server
    engine.family.check_is(0, server.fingerprint())
    assert not server.post("/update_weights", {"update_info": {"version": 1}}).is_good  # neither init nor start
    nobody = f"127.0.0.1:{free_port()}"
    answer = server.init(nobody, channel={"connect_timeout": 1})
    assert not answer.is_good and nobody in answer.text
    answer = server.init(engine.service.address, timeot=3)
    assert not answer.is_good and "timeot" in answer.text
    answer = server.init(engine.service.address, timeout=-1)
    assert not answer.is_good and "timeout -1" in answer.text


def test_versions_arrive(engine: Engine) -> None:
    assert engine.server.init(engine.service.address).is_good
    greedy = engine.server.complete(PROMPTS[0], 16)["token_ids"]
    number = engine.update()
    assert engine.server.get("/weight_info") == {"weight_version": str(number)}
    assert engine.server.complete(PROMPTS[0], 16)["token_ids"] != greedy
    assert f"refit: version {number} installed" in engine.server.log()
    assert f"adapter {engine.family.adapter}" in engine.server.log()


def test_equals_a_server_that_begins_with_the_version(engine: Engine, folder: pathlib.Path) -> None:
    number = engine.update()
    fresh = Server(engine.family.checkpoint(number), folder / f"{engine.family.kind}_fresh.log")
    try:
        assert fresh.fingerprint() == engine.server.fingerprint()  # bit for bit
    finally:
        fresh.end()


@pytest.mark.parametrize("pause", ["", "keep"])
def test_updates_while_requests_run(engine: Engine, pause: str) -> None:
    with _requests(engine.server) as load:
        for _ in range(4):
            number = engine.next_version()
            if pause:
                with engine.server.paused(pause):
                    assert engine.server.update(number).is_good
                    engine.server.reset_caches()
            else:
                assert engine.server.update(number).is_good
                engine.server.reset_caches()
    assert load.served > 0 and not load.errors
    engine.family.check_is(number, engine.server.fingerprint())


def test_no_cached_value_outlives_its_weights(engine: Engine) -> None:
    long = prompt(9, 300)
    engine.server.complete(long, 8)
    engine.update()
    stale = engine.server.complete(long, 8)["logprobs"]["token_logprobs"]
    engine.server.reset_caches()
    first = engine.server.complete(long, 8)["logprobs"]["token_logprobs"]
    engine.server.reset_caches()
    assert engine.server.complete(long, 8)["logprobs"]["token_logprobs"] == first
    # vLLM's own: its scheduler keeps the cache, which no worker can reach. This is why the page has the routes.
    assert distance(stale, first) > 0


def test_update_infos_that_are_wrong(engine: Engine) -> None:
    engine.check_refuses(999, "999", "NOT_FOUND")
    engine.check_refuses(engine.number, "verzion", verzion=1)
    engine.check_refuses(engine.number, "deadline", deadline=0)
    for version in ("latest", str(engine.number), None, -1, float(engine.number), True):
        engine.check_refuses(version, "version", "expected a whole number")
    engine.check_refuses(2**70)  # in vLLM's own words: no worker hears of it
    assert engine.server.post("/finish_weight_update").is_good  # nor that the update is over
    engine.update()


def test_a_version_that_its_trainer_gave_up(engine: Engine) -> None:
    engine.number += 1
    tensors = list(engine.family.native(engine.number).items())
    with engine.service.publisher(adapter=engine.family.adapter) as publisher:
        with pytest.raises(KeyError), publisher.version(engine.number, declare=dict(tensors)) as version:
            version.push(dict(tensors[: len(tensors) // 2]))
            raise KeyError("the trainer gives up")
    engine.check_refuses(engine.number, str(engine.number), "aborted")
    engine.update()


def test_what_the_model_does_not_take(engine: Engine) -> None:
    tensors = engine.family.native(engine.number)
    projection = next(name for name in tensors if "layers.1." in name and "o_proj" in name)
    prefix = projection.split("layers.")[0]
    norm = f"{prefix}norm.weight"
    lacking = {
        "a wrong shape": {**tensors, projection: torch.zeros(16, 16, dtype=torch.bfloat16)},
        "a larger shape": {**tensors, norm: torch.zeros(2 * len(tensors[norm]), dtype=torch.bfloat16)},
        "a dtype": {**tensors, norm: tensors[norm].to(torch.int32)},
        "an unknown name": {**tensors, f"{prefix}layers.1.no_such.weight": torch.zeros(4)},
        "a layer": {name: tensor for name, tensor in tensors.items() if "layers.2." not in name},
        "a projection": {name: tensor for name, tensor in tensors.items() if "layers.1.self_attn.k_proj" not in name},
        "nearly all": {norm: tensors[norm]},
    }
    for what, version in lacking.items():
        number = engine.next_version(tensors=version)
        engine.check_refuses(number, f"version {number}", "tensor ", "INVALID_ARGUMENT")
    engine.update()


def test_a_service_that_dies_while_a_version_comes(engine: Engine) -> None:
    engine.number += 1
    tensors = list(engine.family.native(engine.number).items())
    publisher = engine.service.publisher(adapter=engine.family.adapter)
    version = publisher.version(engine.number, declare=dict(tensors)).__enter__()
    version.push(dict(tensors[: len(tensors) // 2]))
    before = engine.server.fingerprint()
    waits = _begin(lambda: engine.server.update(engine.number))
    assert not waits.wait(1.5)
    killed = time.monotonic()
    engine.service.signal(signal.SIGKILL)
    answer = waits.result(30)
    assert not answer.is_good and "UNAVAILABLE" in answer.text and engine.service.address in answer.text
    assert time.monotonic() - killed < 10  # the engine stands still meanwhile
    assert engine.server.fingerprint() == before
    with pytest.raises(refit.RefitError):
        version.__exit__(None, None, None)
    engine.check_refuses(engine.number, "UNAVAILABLE")
    engine.service.start()
    engine.update()  # without a new init


def test_a_service_that_hangs(engine: Engine) -> None:
    assert engine.server.init(engine.service.address, timeout=3).is_good
    older, newer = engine.update(), engine.next_version()
    with engine.service.publisher() as publisher:
        publisher.wait_for_workers(newer, phase="staged")
    engine.service.signal(signal.SIGSTOP)
    try:
        assert engine.check_refuses(older) < 15
        # It is at hand, once the worker's report of it has ended, which the service may have been stopped within.
        assert any(engine.server.update(newer).is_good for _ in range(5))
        engine.family.check_is(newer, engine.server.fingerprint())
    finally:
        engine.service.signal(signal.SIGCONT)
    assert engine.server.update(older).is_good
    engine.family.check_is(older, engine.server.fingerprint())


def test_part_of_a_model_for_whoever_means_it(engine: Engine) -> None:
    assert engine.server.init(engine.service.address, allow_partial=True).is_good
    before = engine.update()
    tensors = engine.family.native(before)
    layer = {name: tensor for name, tensor in tensors.items() if "layers.1." in name}
    number = engine.next_version(tensors=layer)
    fingerprint = engine.server.fingerprint()
    assert engine.server.update(number).is_good
    assert engine.server.fingerprint() == fingerprint  # the same values once more
    projection = next(name for name in layer if "k_proj" in name)
    number = engine.next_version(tensors={name: tensor for name, tensor in layer.items() if name != projection})
    engine.check_refuses(number, "filled whole or not at all")
    assert engine.server.init(engine.service.address).is_good
    engine.update()


def test_the_engine_goes_on_when_a_version_is_late(engine: Engine) -> None:
    engine.number += 1
    tensors = list(engine.family.native(engine.number).items())
    with engine.service.publisher(adapter=engine.family.adapter) as publisher:
        with publisher.version(engine.number, declare=dict(tensors)) as version:
            version.push(dict(tensors[: len(tensors) // 2]))
            seconds = engine.check_refuses(engine.number, "DEADLINE_EXCEEDED", "ask again", deadline=1)
            assert 1 <= seconds < 10
            version.push(dict(tensors[len(tensors) // 2 :]))
        publisher.wait_for_workers(engine.number, phase="staged")  # beside the engine
        assert engine.server.update(engine.number).is_good
        engine.family.check_is(engine.number, engine.server.fingerprint())
        publisher.wait_for_workers(engine.number, all=True, phase="installed")


def test_back_to_an_older_version(engine: Engine) -> None:
    older = engine.update()
    newer = engine.update()
    assert engine.server.update(older).is_good
    engine.family.check_is(older, engine.server.fingerprint())
    assert engine.server.update(newer).is_good
    engine.family.check_is(newer, engine.server.fingerprint())


class _Load:
    def __init__(self) -> None:
        self.served = 0
        self.errors: List[str] = []


class _requests:
    """Requests one after another in some threads, while the block runs."""

    def __init__(self, server: Server):
        self._server = server
        self._end = threading.Event()
        self._load = _Load()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self._load

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._server.complete(PROMPTS[self._load.served % len(PROMPTS)], 24)
                self._load.served += 1
            except Exception as error:
                self._load.errors.append(repr(error))
                return


class _begin:
    """A call in a thread."""

    def __init__(self, call: Any):
        self._done = threading.Event()
        self._results: List[Any] = []
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Any) -> None:
        try:
            self._results.append(call())
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        return self._done.wait(seconds)

    def result(self, seconds: float) -> Any:
        assert self.wait(seconds), f"no answer within {seconds} s"
        self._thread.join()
        return self._results[0]
