"""refit.integrations.nemo_rl, against NeMo-RL's base class as it was read."""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import Any, Dict, List

import pytest
from integrations_support import all_same, torch, weights
from stand_ins import assert_fits
from stand_ins.nemo_rl import CheckpointEngine, Refit

import refit
from refit.integrations.shared.hosting import Hosting
from refit.integrations.nemo_rl import RefitCheckpointEngine

BACKEND = "refit.integrations.nemo_rl:RefitCheckpointEngine"


async def receive(engine: Any) -> List[List[Any]]:
    return [batch async for batch in engine.receive_weight_batches()]


async def send(refit_: Refit, per_rank: List[Any]) -> None:
    await asyncio.gather(*(one.send_weights(iter(w)) for one, w in zip(refit_.policies, per_rank)))


def round_trip(refit_: Refit, per_rank: List[Any]) -> List[Dict[str, Any]]:
    async def both() -> List[Any]:
        received = [asyncio.ensure_future(receive(one)) for one in refit_.rollouts]
        await send(refit_, per_rank)
        return await asyncio.gather(*received)

    return [dict(pair for batch in batches for pair in batch) for batches in asyncio.run(both())]


class Drained:
    """A generator that tells whether it was drained."""

    def __init__(self, tensors: Dict[str, Any]):
        self._pairs = iter(tensors.items())
        self.left = len(tensors)

    def __iter__(self) -> "Drained":
        return self

    def __next__(self) -> Any:
        pair = next(self._pairs)
        self.left -= 1
        return pair


def test_it_fits_the_contract() -> None:
    assert_fits(RefitCheckpointEngine, CheckpointEngine)
    assert inspect.isasyncgenfunction(RefitCheckpointEngine.receive_weight_batches)


def test_weights_arrive_bit_for_bit_on_every_rollout_worker() -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=2, rollouts=3)
    for seed in range(3):  # the first is gathered, the others are streamed
        expected = weights(seed)
        got = round_trip(refit_, [expected.items(), expected.items()])
        assert len(got) == 3 and all(all_same(one, expected) for one in got)
    refit_.shutdown()


def test_batches_hold_at_most_a_bucket() -> None:
    refit_ = Refit(BACKEND, 2100, policies=1, rollouts=1)
    batches = asyncio.run(_both(refit_, weights()))
    sizes = [sum(t.numel() * t.element_size() for _, t in batch) for batch in batches]
    assert [len(batch) for batch in batches] == [1, 1, 3]  # 2048, 3072 (alone), 64 + 4 + 64 bytes
    assert all(size <= 2100 or len(batch) == 1 for size, batch in zip(sizes, batches))
    refit_.shutdown()


async def _both(refit_: Refit, tensors: Dict[str, Any]) -> List[List[Any]]:
    received = asyncio.ensure_future(receive(refit_.rollouts[0]))
    await send(refit_, [tensors.items()])
    return await received


def test_every_rank_drains_its_generator_and_only_rank_0_pushes(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=2, rollouts=1, address=service.address)
    for seed in range(2):
        generators = [Drained(weights(seed)), Drained(weights(seed + 10))]
        got = round_trip(refit_, generators)
        assert [one.left for one in generators] == [0, 0]
        assert all_same(got[0], weights(seed))


def test_a_refit_that_fails_is_drained_and_leaves_nothing(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address)
    round_trip(refit_, [weights(0).items()])
    wrong = Drained({**weights(1), "model.layers.0.scale": torch.zeros(2), "z": torch.zeros(1)})

    async def fail() -> List[Any]:
        received = asyncio.ensure_future(receive(refit_.rollouts[0]))
        return await asyncio.gather(refit_.policies[0].send_weights(wrong), received, return_exceptions=True)

    sent, received = asyncio.run(fail())
    assert isinstance(sent, refit.InvalidArgument) and sent.tensor == "model.layers.0.scale" and sent.version == 2
    assert isinstance(received, refit.RefitError) and received.version == 2
    assert wrong.left == 0
    assert refit.Subscriber(service.address).pull().number == 1
    assert all_same(round_trip(refit_, [weights(3).items()])[0], weights(3))


def broken(first: int = 0) -> Any:
    """A generator that raises after so many tensors."""
    yield from list(weights().items())[:first]
    raise RuntimeError("a collective failed")


def test_a_generator_that_raises_aborts_the_version(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address)

    with pytest.raises(RuntimeError, match="a collective failed"):
        asyncio.run(refit_.policies[0].send_weights(broken(len(weights()))))
    with pytest.raises(refit.NotFound):
        refit.Subscriber(service.address).pull()


async def send_and_receive(refit_: Refit, tensors: Any) -> List[Any]:
    """What send_weights() and receive_weight_batches() gave; exceptions too."""
    received = asyncio.ensure_future(receive(refit_.rollouts[0]))
    return await asyncio.gather(refit_.policies[0].send_weights(tensors), received, return_exceptions=True)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("first", [0, 2])
def test_a_refit_that_fails_before_its_push_is_told_at_once_on_both_sides(
    service: Any, before: int, first: int
) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address)
    for seed in range(before):  # the first one is gathered, those after it are streamed
        round_trip(refit_, [weights(seed).items()])
    sent, received = asyncio.run(asyncio.wait_for(send_and_receive(refit_, broken(first)), 20))
    assert isinstance(sent, RuntimeError)
    assert isinstance(received, refit.RefitError) and "a collective failed" in str(received)
    assert all_same(round_trip(refit_, [weights(5).items()])[0], weights(5))


def test_a_rank_that_fails_before_its_push_ends_those_of_the_others(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=2, rollouts=1, address=service.address, sharded=True)

    def fails() -> Any:
        raise RuntimeError("a collective failed")
        yield

    async def all_of_them() -> List[Any]:
        received = asyncio.ensure_future(receive(refit_.rollouts[0]))
        sent = (one.send_weights(w) for one, w in zip(refit_.policies, (shards(0), fails())))
        return await asyncio.gather(*sent, received, return_exceptions=True)

    def shards(rank: int) -> Any:
        return iter([("a", FakeDTensor(torch.zeros(6, 5), rank, 2))])

    zero, one, received = asyncio.run(asyncio.wait_for(all_of_them(), 20))
    assert isinstance(one, RuntimeError)
    assert isinstance(zero, refit.RefitError) and "a collective failed" in str(zero)
    assert isinstance(received, refit.RefitError) and "a collective failed" in str(received)
    assert all_same(round_trip(refit_, [shards(0), shards(1)])[0], {"a": torch.zeros(6, 5)})


def test_a_refit_that_one_side_never_began_does_not_put_the_other_out_of_step(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address)
    round_trip(refit_, [weights(0).items()])

    async def next_one() -> List[Any]:
        left = asyncio.ensure_future(receive(refit_.rollouts[0]))  # the policy fails before it sends
        await asyncio.sleep(0.2)
        received = asyncio.ensure_future(receive(refit_.rollouts[0]))
        await asyncio.sleep(0.2)
        await refit_.policies[0].send_weights(iter(weights(1).items()))
        return await asyncio.gather(left, received, return_exceptions=True)

    left, received = asyncio.run(asyncio.wait_for(next_one(), 20))
    assert isinstance(left, refit.Aborted) and "anew" in str(left)
    assert all_same(dict(pair for batch in received for pair in batch), weights(1))


def test_a_version_unlike_those_before_is_given_to_no_model(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address)
    round_trip(refit_, [weights(0).items()])
    less = weights(1)
    less.pop("model.layers.0.scale")
    for again in range(2):  # the sender notices, and takes it for meant when it comes again; the receiver does not
        sent, received = asyncio.run(send_and_receive(refit_, iter(less.items())))
        assert isinstance(received, refit.RefitError) and received.version == 2 + again
        assert (sent is None) == bool(again)
    assert isinstance(received, refit.InvalidArgument) and received.tensor == "model.layers.0.scale"
    sent, received = asyncio.run(send_and_receive(refit_, iter(weights(2).items())))  # noticed by the sender again
    assert isinstance(sent, refit.RefitError)
    assert all_same(round_trip(refit_, [weights(3).items()])[0], weights(3))


def test_a_part_is_given_if_it_is_meant(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address, allow_partial=True)
    round_trip(refit_, [weights(0).items()])
    less = {"model.layers.0.scale": weights(1)["model.layers.0.scale"]}
    for tensors in (less, weights(2), less):
        assert all_same(round_trip(refit_, [tensors.items()])[0], tensors)


def test_a_service_that_is_gone_ends_the_wait() -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, channel={"connect_timeout": 1.0})
    refit_.policies[0].finalize()  # its process ended
    with pytest.raises(refit.Unavailable):
        asyncio.run(asyncio.wait_for(receive(refit_.rollouts[0]), 30))


def test_a_port_that_was_taken_meanwhile_is_not_asked_for_again() -> None:
    hosting = Hosting()
    host, _, port = hosting.reserve().rpartition(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        with pytest.raises(refit.RefitError, match=port):
            hosting.start()
        assert hosting.start() != f"{host}:{port}"
    hosting.close()


def test_connecting_anew_brings_all_to_one_count(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address)
    round_trip(refit_, [weights(0).items()])
    refit_.shutdown()
    refit_.rollouts = [RefitCheckpointEngine(1 << 20, address=service.address)]  # one that has counted nothing
    refit_.connect()
    assert all_same(round_trip(refit_, [weights(1).items()])[0], weights(1))
    assert refit.Subscriber(service.address).pull().number == 2


def test_the_own_service_is_started_anew_after_a_release() -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, release_after_refit=True)
    for seed in range(2):
        assert all_same(round_trip(refit_, [weights(seed).items()])[0], weights(seed))
        refit_.shutdown()
        refit_.connect()
    refit_.shutdown()


def test_native_tensors_are_converted_on_request() -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, adapter="gemma4_moe", dtype="bf16")
    name, native = "model.language_model.layers.0.moe.experts.down_projs", torch.randn(2, 3, 4)
    expected = dict(refit.convert_single_tensor_to_hf(name, native, dtype="bf16"))
    assert all_same(round_trip(refit_, [[(name, native)]])[0], expected)
    refit_.shutdown()


class FakeMesh:
    """Of one dimension."""

    def __init__(self, rank: int, world: int):
        self._rank, self._world = rank, world

    def get_coordinate(self) -> List[int]:
        return [self._rank]

    def size(self, _: int) -> int:
        return self._world


class Shard:
    dim = 0


class FakeDTensor:
    """What refit sees of a DTensor that is cut in its first dimension."""

    placements = (Shard(),)

    def __init__(self, whole: Any, rank: int, world: int):
        self.shape, self.dtype = whole.shape, whole.dtype
        self.device_mesh = FakeMesh(rank, world)
        self._local = whole.chunk(world)[rank]

    def to_local(self) -> Any:
        return self._local


def test_of_dtensors_every_rank_pushes_its_part(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=2, rollouts=1, address=service.address)
    for seed in range(2):
        torch.manual_seed(seed)
        whole = {"a": torch.randn(6, 5), "b": torch.randn(4)}
        shards = [[(name, FakeDTensor(t, rank, 2)) for name, t in whole.items()] for rank in range(2)]
        assert all_same(round_trip(refit_, shards)[0], whole)


def test_a_dtensor_among_whole_tensors_is_refused(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address)
    mixed = [("a", torch.zeros(4)), ("b", FakeDTensor(torch.zeros(4), 0, 1))]
    with pytest.raises(refit.InvalidArgument, match="tensor b: it is a DTensor") as raised:
        asyncio.run(refit_.policies[0].send_weights(iter(mixed)))
    assert raised.value.tensor == "b"


def test_a_refit_that_never_begins_ends_the_wait(service: Any) -> None:
    refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address, timeout=0.3)
    with pytest.raises(refit.DeadlineExceeded) as raised:
        asyncio.run(receive(refit_.rollouts[0]))
    assert raised.value.version == 1


def test_without_a_process_group_it_says_so() -> None:
    with pytest.raises(refit.FailedPrecondition, match="prepare"):
        asyncio.run(RefitCheckpointEngine(1).send_weights(iter(())))
    with pytest.raises(refit.InvalidArgument, match="bucket_size"):
        RefitCheckpointEngine(0)
    with pytest.raises(refit.InvalidArgument, match="version '1': expected a whole number"):
        RefitCheckpointEngine(1, first_version="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unheard_of"):
        RefitCheckpointEngine(1, unheard_of=1)  # type: ignore[call-arg]


def test_what_is_served_beyond_this_host_is_told_by_its_address() -> None:
    engine = RefitCheckpointEngine(1, serve={"listen": "0.0.0.0:4711"}, advertise="trainer-0")
    assert engine.prepare()["address"] == "trainer-0:4711"
    host = RefitCheckpointEngine(1, serve={"listen": "0.0.0.0:0"}).prepare()["address"].rpartition(":")[0]
    assert host not in ("", "0.0.0.0")


def test_a_run_that_is_started_anew_goes_on_above_the_last(service: Any) -> None:
    for run in range(3):
        refit_ = Refit(BACKEND, 1 << 20, policies=2, rollouts=2, address=service.address)
        for seed in range(2):
            expected = weights(10 * run + seed)
            assert all(all_same(one, expected) for one in round_trip(refit_, [expected.items(), expected.items()]))
        last = refit.Subscriber(service.address).pull().info
        assert (last.trainer_epoch, last.version) == (run + 1, 2 * run + 2)
        refit_.shutdown()


def test_rollout_workers_take_nothing_of_a_former_run(service: Any) -> None:
    former = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address)
    round_trip(former, [weights(0).items()])
    # One that has just asked, and another that pushes meanwhile: the numbers of the former run grow.
    present = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, address=service.address, timeout=0.5)
    asyncio.run(send(former, [weights(1).items()]))
    with pytest.raises(refit.DeadlineExceeded):
        asyncio.run(receive(present.rollouts[0]))
    present.rollouts[0]._exchange.next_version -= 1
    assert all_same(round_trip(present, [weights(2).items()])[0], weights(2))
    with pytest.raises(refit.FailedPrecondition, match="has taken over"):
        asyncio.run(send(former, [weights(3).items()]))


def test_a_service_of_its_own_that_keeps_versions_is_gone_on_with(tmp_path: Any) -> None:
    for seed in range(2):
        refit_ = Refit(BACKEND, 1 << 20, policies=1, rollouts=1, serve={"spool": str(tmp_path / "spool")})
        assert all_same(round_trip(refit_, [weights(seed).items()])[0], weights(seed))
        refit_.shutdown()
