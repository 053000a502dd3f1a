"""refit.integrations.verl, against verl's base class and registry: a stand-in's, and the installed one's."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import time
from typing import Any, Dict, List, Optional

import pytest
import stand_ins
from integrations_support import all_same, torch, weights

import refit
from stand_ins.verl import connect

PLUG = "refit.integrations.verl"


@pytest.fixture(params=["stand-in", "installed"])
def contract(request: Any, monkeypatch: Any) -> Any:
    """verl.checkpoint_engine, with the plug loaded as custom_backend_module does it."""
    if request.param == "stand-in":
        module = stand_ins.load("verl")
        stand_ins.use(monkeypatch, {"verl.checkpoint_engine": module}, fresh=[PLUG])
    else:
        try:
            module = importlib.import_module("verl.checkpoint_engine")
        except Exception as error:  # an installation without its dependencies fails in many ways
            pytest.skip(f"verl cannot be imported: {error!r}")
        monkeypatch.delitem(__import__("sys").modules, PLUG, raising=False)
    importlib.import_module(PLUG)
    return module


def workers(contract: Any, actors: int, rollouts: int, **settings: Any) -> Any:
    new = contract.CheckpointEngineRegistry.new
    return (
        [new("refit", is_master=rank == 0, bucket_size=1 << 20, **settings) for rank in range(actors)],
        [new("refit", bucket_size=1 << 20, **settings) for _ in range(rollouts)],
    )


def results(actors: List[Any], rollouts: List[Any], tensors: Dict[str, Any], global_steps: Optional[int]) -> List[Any]:
    """Of one step: what each actor's call gave, then what each rollout worker received; exceptions too."""
    connect(actors, rollouts)

    async def receive(engine: Any) -> Dict[str, Any]:
        return {name: tensor async for name, tensor in engine.receive_weights(global_steps=global_steps)}

    async def all_of_them() -> List[Any]:
        return await asyncio.gather(
            *(one.send_weights(iter(tensors.items()), global_steps=global_steps) for one in actors),
            *(receive(one) for one in rollouts),
            return_exceptions=True,
        )

    given = asyncio.run(all_of_them())
    for one in actors + rollouts:
        one.finalize()
    return given


def step(actors: List[Any], rollouts: List[Any], tensors: Dict[str, Any], global_steps: Optional[int]) -> List[Any]:
    """What each rollout worker received."""
    given = results(actors, rollouts, tensors, global_steps)
    assert given[: len(actors)] == [None] * len(actors)
    return given[len(actors) :]


def test_it_fits_the_contract(contract: Any) -> None:
    engine = contract.CheckpointEngineRegistry.get("refit")
    assert issubclass(engine, contract.CheckpointEngine) and not inspect.isabstract(engine)
    stand_ins.assert_fits(engine, contract.CheckpointEngine)


def test_steps_arrive_bit_for_bit_on_every_rollout_worker(contract: Any, service: Any) -> None:
    actors, rollouts = workers(contract, 2, 2, address=service.address)
    versions = []
    for seed, global_steps in enumerate([0, None, 5, 5, 6]):
        got = step(actors, rollouts, weights(seed), global_steps)
        assert len(got) == 2 and all(all_same(one, weights(seed)) for one in got)
        versions.append(refit.Subscriber(service.address).pull().number)
    assert versions == [1, 2, 5, 6, 7]


def test_the_master_starts_a_service_and_replicas_may_come_and_go(contract: Any) -> None:
    actors, rollouts = workers(contract, 1, 1)
    assert all_same(step(actors, rollouts, weights(0), 1)[0], weights(0))
    _, others = workers(contract, 0, 2)
    assert all(all_same(one, weights(1)) for one in step(actors, others, weights(1), 2))


def test_a_step_that_fails_is_told_on_both_sides(contract: Any, service: Any) -> None:
    actors, rollouts = workers(contract, 1, 1, address=service.address)
    step(actors, rollouts, weights(0), 1)
    sent, received = results(actors, rollouts, {**weights(1), "more": torch.zeros(1)}, 2)
    assert isinstance(sent, refit.NotFound) and sent.tensor == "more"
    assert isinstance(received, refit.RefitError) and received.version == 2
    assert refit.Subscriber(service.address).pull().number == 1
    assert all_same(step(actors, rollouts, weights(2), 3)[0], weights(2))


def test_a_step_that_fails_before_its_push_is_told_at_once_on_both_sides(contract: Any, service: Any) -> None:
    actors, rollouts = workers(contract, 1, 1, address=service.address)

    class Broken(Dict[str, Any]):
        def items(self) -> Any:  # type: ignore[override]
            raise_now = RuntimeError("a collective failed")

            def pairs() -> Any:
                raise raise_now
                yield

            return pairs()

    begin = time.monotonic()
    sent, received = results(actors, rollouts, Broken(), 1)
    assert time.monotonic() - begin < 20
    assert isinstance(sent, RuntimeError)
    assert isinstance(received, refit.RefitError) and "a collective failed" in str(received)
    assert all_same(step(actors, rollouts, weights(2), 2)[0], weights(2))


def test_a_rollout_that_still_waits_for_a_former_step_lets_go_of_it(contract: Any, service: Any) -> None:
    (actor,), (rollout,) = workers(contract, 1, 1, address=service.address)

    async def receive() -> Dict[str, Any]:
        return {name: tensor async for name, tensor in rollout.receive_weights(global_steps=1)}

    async def steps() -> List[Any]:
        connect([actor], [rollout])
        left = asyncio.ensure_future(receive())  # the actor fails before it sends
        await asyncio.sleep(0.2)
        connect([actor], [rollout])
        received = asyncio.ensure_future(receive())
        await actor.send_weights(iter(weights(1).items()), global_steps=1)
        return await asyncio.gather(left, received, return_exceptions=True)

    left, received = asyncio.run(asyncio.wait_for(steps(), 20))
    assert isinstance(left, refit.Aborted) and all_same(received, weights(1))


def test_a_step_that_lacks_a_tensor_is_given_to_no_model(contract: Any, service: Any) -> None:
    actors, rollouts = workers(contract, 1, 1, address=service.address)
    step(actors, rollouts, weights(0), 1)
    less = weights(1)
    less.pop("model.layers.0.scale")
    results(actors, rollouts, less, 2)  # noticed by the sender
    sent, received = results(actors, rollouts, less, 3)
    assert sent is None
    assert isinstance(received, refit.InvalidArgument) and received.tensor == "model.layers.0.scale"


def test_misuse_is_told(contract: Any) -> None:
    (actor,), (rollout,) = workers(contract, 1, 1, address="127.0.0.1:1")
    with pytest.raises(refit.FailedPrecondition, match="prepare"):
        asyncio.run(actor.send_weights(iter(())))
    with pytest.raises(refit.FailedPrecondition, match="master"):
        type(rollout).build_topology(1, 0, [rollout.prepare()])
    with pytest.raises(refit.InvalidArgument, match="bucket_size"):
        contract.CheckpointEngineRegistry.new("refit", bucket_size=0)


def test_without_verl_it_says_what_it_needs(monkeypatch: Any) -> None:
    stand_ins.without(monkeypatch, "verl", fresh=[PLUG])
    with pytest.raises(ImportError, match="needs verl >= 0.8"):
        importlib.import_module(PLUG)


def test_a_run_that_resumes_at_an_older_step_goes_on(contract: Any, service: Any) -> None:
    versions = []
    for seed, global_steps in enumerate([47, 41, 60]):  # each a run of its own
        actors, rollouts = workers(contract, 1, 2, address=service.address)
        assert all(all_same(one, weights(seed)) for one in step(actors, rollouts, weights(seed), global_steps))
        info = refit.Subscriber(service.address).pull().info
        versions.append((info.trainer_epoch, info.version))
    assert versions == [(1, 47), (2, 48), (3, 60)]


def test_a_former_run_is_shut_out_and_nothing_of_it_is_taken(contract: Any, service: Any) -> None:
    former, of_former = workers(contract, 1, 1, address=service.address)
    step(former, of_former, weights(0), 1)
    present, of_present = workers(contract, 1, 1, address=service.address)
    assert all_same(step(present, of_present, weights(1), 1)[0], weights(1))
    sent, received = results(former, of_former, weights(2), 9)
    assert isinstance(sent, refit.FailedPrecondition) and "has taken over" in str(sent)
    assert isinstance(received, refit.RefitError)
