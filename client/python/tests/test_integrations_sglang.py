"""refit.integrations.sglang: the loader, called as SGLang does."""

from __future__ import annotations

import json
import pathlib
import socket
import time
from typing import Any, Callable, Dict, List

import pytest
from integrations_support import all_same, publish, torch, weights
from processes import start
from sglang_model import PlainModel, StackedModel, checkpoint

import refit
from refit.integrations.sglang import DESCRIPTOR, descriptor, load


def test_a_version_arrives_bit_for_bit(service: Any) -> None:
    publish(service.address, 3, weights(3), model="policy")
    model = PlainModel()
    load(model, descriptor(service.address, 3, model="policy"))
    assert all_same(model.loaded, weights(3))


def test_options_reach_the_pull(service: Any) -> None:
    publish(service.address, 1, weights())
    model = PlainModel()
    load(model, descriptor(service.address, 1, filter="layernorm", transport="wire", worker="tp0"))
    assert list(model.loaded) == ["model.layers.0.input_layernorm.weight"]


def test_a_version_that_is_not_there_leaves_the_model(service: Any) -> None:
    publish(service.address, 1, weights())
    model = PlainModel()
    with pytest.raises(refit.NotFound) as raised:
        load(model, descriptor(service.address, 2))
    assert raised.value.version == 2 and model.loaded == {}


@pytest.mark.parametrize(
    "named_tensors, reason",
    [
        ([], "expected the one tensor"),
        ([("w", torch.zeros(2))], r"\['w'\]"),
        ([(DESCRIPTOR, torch.zeros(2))], "no descriptor"),
        ([(DESCRIPTOR, torch.tensor(list(b"[1]"), dtype=torch.uint8))], "no descriptor"),
        ([(DESCRIPTOR, torch.tensor(list(b"{}"), dtype=torch.uint8))], "no descriptor"),
    ],
)
def test_what_is_no_descriptor_is_refused(named_tensors: Any, reason: str) -> None:
    with pytest.raises(refit.InvalidArgument, match=reason):
        load(PlainModel(), named_tensors)


def test_a_descriptor_is_checked_where_it_is_made(service: Any) -> None:
    with pytest.raises(refit.InvalidArgument, match="'latest': expected a whole number"):
        descriptor("host:1", "latest")  # type: ignore[arg-type]
    with pytest.raises(refit.InvalidArgument, match="version 1: .*JSON"):
        descriptor("host:1", 1, filter=object())
    with pytest.raises(refit.InvalidArgument, match="unheard_of"):
        load(PlainModel(), descriptor(service.address, 1, unheard_of=1))


@pytest.mark.parametrize(
    "option", [{"agree_within": "soon"}, {"pull_within": None}, {"idle_timeout": "x"}, {"names": 3}, {"filter": "["}]
)
def test_an_option_of_the_wrong_kind_is_an_answer_too(service: Any, option: Dict[str, Any]) -> None:
    publish(service.address, 1, weights())
    named_tensors = descriptor(service.address, 1, **option)
    with pytest.raises(refit.InvalidArgument) as raised:
        load(PlainModel(), named_tensors)
    assert raised.value.version == 1


@pytest.mark.parametrize("version", ["latest", None, -1, 9.0, True, 2**70, "42"])
def test_a_version_is_a_number(version: Any) -> None:
    with pytest.raises(refit.InvalidArgument) as raised:
        descriptor("host:1", version)
    assert repr(version) in str(raised.value) and "whole number" in str(raised.value)
    text = json.dumps({"address": "host:1", "version": version, "options": {}})
    with pytest.raises(refit.InvalidArgument, match="whole number"):
        load(PlainModel(), [(DESCRIPTOR, torch.tensor(list(text.encode()), dtype=torch.uint8))])


def changed(value: float, change: Callable[[Dict[str, Any]], Any]) -> Dict[str, Any]:
    tensors = checkpoint(value)
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    "change, tensor, reason",
    [
        (lambda w: w.pop("layers.1.k_proj"), "layers.1.k_proj", "missing"),
        (lambda w: [w.pop(name) for name in list(w) if name.startswith("layers.1.")], "layers.1.q_proj", "and 3 more"),
        (lambda w: w.update({"layers.2.norm": torch.zeros(4)}), "layers.2.norm", "none of this name"),
        (lambda w: w.update({"layers.1.norm": torch.zeros(5)}), "layers.1.norm", r"expected F32 \[4\], got F32 \[5\]"),
        (lambda w: w.update({"layers.1.norm": torch.zeros(4).half()}), "layers.1.norm", "got F16"),
    ],
)
def test_a_version_unlike_those_before_is_refused_and_nothing_is_touched(
    service: Any, change: Any, tensor: str, reason: str
) -> None:
    model = StackedModel()
    publish(service.address, 1, checkpoint(1))
    load(model, descriptor(service.address, 1))
    publish(service.address, 2, changed(2, change))
    with pytest.raises(refit.InvalidArgument, match=reason) as raised:
        load(model, descriptor(service.address, 2))
    assert raised.value.tensor == tensor and raised.value.version == 2 and not raised.value.torn
    assert model.values() == {1.0}
    publish(service.address, 3, checkpoint(3))
    load(model, descriptor(service.address, 3))
    assert model.values() == {3.0}


def test_a_part_is_loaded_if_it_is_meant(service: Any) -> None:
    model = StackedModel()
    publish(service.address, 1, checkpoint(1))
    load(model, descriptor(service.address, 1))
    publish(service.address, 2, {"layers.0.norm": torch.full((4,), 2.0)})
    load(model, descriptor(service.address, 2, allow_partial=True))
    assert model.values() == {1.0, 2.0}
    load(model, descriptor(service.address, 1, filter="layers.0.norm"))
    assert model.values() == {1.0}
    load(model, descriptor(service.address, 1))  # a whole one is as the first one was


class Breaks(StackedModel):
    """Its load_weights raises at a tensor, as often as it is told to."""

    def __init__(self, at: str, after: int, times: int):
        super().__init__()
        self._at, self._after, self._times = at, after, times

    def load_weights(self, weights: Any) -> Any:
        return super().load_weights(self._broken(weights))

    def _broken(self, weights: Any) -> Any:
        self._after -= 1
        for name, tensor in weights:
            if name == self._at and self._after < 0 and self._times > 0:
                self._times -= 1
                raise RuntimeError("out of memory")
            yield name, tensor


def test_a_load_that_fails_half_way_leaves_the_version_before(service: Any) -> None:
    model = Breaks("layers.1.q_proj", after=1, times=1)
    for version in (1, 2):
        publish(service.address, version, checkpoint(version))
    load(model, descriptor(service.address, 1))
    with pytest.raises(refit.FailedPrecondition, match="out of memory.*has version 1 again, all of it") as raised:
        load(model, descriptor(service.address, 2))
    assert raised.value.tensor == "layers.1.q_proj" and raised.value.version == 2 and not raised.value.torn
    assert model.values() == {1.0}
    load(model, descriptor(service.address, 2))
    assert model.values() == {2.0}


def test_a_model_that_cannot_go_back_is_torn_until_it_has_a_whole_version(service: Any) -> None:
    model = Breaks("layers.1.q_proj", after=1, times=2)
    for version in (1, 2):
        publish(service.address, version, checkpoint(version))
    load(model, descriptor(service.address, 1))
    reason = r"could not be loaded again.*\(torn\): load a whole version"
    with pytest.raises(refit.FailedPrecondition, match=reason) as raised:
        load(model, descriptor(service.address, 2))
    assert raised.value.torn
    with pytest.raises(refit.FailedPrecondition, match="torn"):
        load(model, descriptor(service.address, 2, filter="layers.0"))
    load(model, descriptor(service.address, 2))
    assert model.values() == {2.0}


def test_a_first_version_that_fails_half_way_is_torn(service: Any) -> None:
    model = StackedModel()
    publish(service.address, 1, changed(1, lambda w: w.update({"layers.1.norm": torch.zeros(5)})))
    with pytest.raises(refit.FailedPrecondition, match=r"version 1, tensor layers.1.norm: .*Attempted.*torn") as raised:
        load(model, descriptor(service.address, 1))
    assert raised.value.torn and raised.value.tensor == "layers.1.norm"
    publish(service.address, 2, checkpoint(2))
    load(model, descriptor(service.address, 2))
    assert model.values() == {2.0}


def test_a_load_that_fails_before_it_takes_a_tensor_names_none(service: Any, monkeypatch: Any) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("not now")

    monkeypatch.setattr(StackedModel, "load_weights", fails)
    publish(service.address, 1, checkpoint(1))
    with pytest.raises(
        refit.FailedPrecondition, match="version 1: load_weights raised RuntimeError: not now"
    ) as raised:
        load(StackedModel(), descriptor(service.address, 1))
    assert raised.value.tensor is None and raised.value.torn


def test_parameters_that_a_first_version_leaves_are_told_where_the_model_says(service: Any) -> None:
    model = StackedModel(says=True)
    publish(service.address, 1, changed(1, lambda w: w.pop("layers.1.norm")))
    with pytest.raises(refit.FailedPrecondition, match="nothing for the model's layers.1.norm") as raised:
        load(model, descriptor(service.address, 1))
    assert raised.value.torn
    load(model, descriptor(service.address, 1, allow_partial=True))


def test_scales_that_a_quantisation_has_made_are_not_asked_for(service: Any) -> None:
    model = StackedModel(says=True)
    publish(service.address, 1, checkpoint(1))
    model.layers[0].qkv_proj_scale = torch.nn.Parameter(torch.ones(1))
    model.layers[0].quant_method = type("Fp8LinearMethod", (), {})()
    load(model, descriptor(service.address, 1))


def test_a_service_that_is_gone_is_told_soon() -> None:
    with refit.serve(memory="64MiB") as gone:
        address = gone.address
    begin = time.monotonic()
    with pytest.raises(refit.RefitError, match=address):
        load(PlainModel(), descriptor(address, 1))
    assert time.monotonic() - begin < 15


def test_a_version_that_is_pushed_and_pushed_holds_the_engine_no_longer_than_it_may(service: Any) -> None:
    publisher = refit.Publisher(service.address, adapter="identity")
    begin = time.monotonic()
    with publisher.version(1, declare={"w": ("f32", (4,))}, rank=0, world=1) as version:
        with pytest.raises(refit.DeadlineExceeded, match="version 1 of .* within 1 s; see") as raised:
            load(PlainModel(), descriptor(service.address, 1, pull_within=1.0))
        assert raised.value.version == 1 and time.monotonic() - begin < 10
        version.push({"w": torch.zeros(4)})
    load(PlainModel(), descriptor(service.address, 1))


RANK = """
import json, torch, torch.distributed as dist, types
sys.path.insert(0, sys.argv[5])
from sglang_model import StackedModel
from refit.integrations.sglang import descriptor, load
rank, world, address = int(sys.argv[1]), 2, sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[2]}", rank=rank, world_size=world)
group = types.SimpleNamespace(cpu_group=dist.new_group([0, 1], backend="gloo"))
sys.modules["sglang.srt.distributed.parallel_state"] = types.SimpleNamespace(get_tp_group=lambda: group)
model = StackedModel()
parts = StackedModel.load_weights
said = []
for step in json.loads(sys.argv[4]):
    version, broken = step[rank]
    def load_weights(self, weights):
        StackedModel.load_weights = parts   # only once
        parts(self, (pair for pair in weights if broken is None or pair[0] < broken))
        if broken is not None:
            raise RuntimeError("out of memory")
    StackedModel.load_weights = load_weights
    try:
        load(model, descriptor(address, version))
        said.append(["", "", sorted(model.values())])
    except refit.RefitError as error:
        said.append([type(error).__name__, str(error), sorted(model.values())])
    dist.barrier()
print(json.dumps(said))
"""


def steps_of_two_ranks(address: str) -> List[Any]:
    """[rank][step] -> [kind, message, what the model has in it]."""
    for version in (1, 2, 3):
        publish(address, version, checkpoint(version))
    steps = [
        [(1, None), (1, None)],
        [(2, None), (9, None)],  # one has no such version
        [(2, None), (1, None)],  # they were told of different ones
        [(3, None), (3, "layers.1")],  # one fails half-way, and both go back
        [(3, None), (3, None)],
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = (port, address, json.dumps(steps), pathlib.Path(__file__).parent)
    running = [start(RANK, rank, *given) for rank in range(2)]
    said = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(json.loads(out.splitlines()[-1]))
    return said


def test_all_tensor_parallel_workers_load_a_version_or_none() -> None:
    with refit.serve(memory="256MiB", retain=3) as service:
        zero, one = steps_of_two_ranks(service.address)
    assert zero[0] == one[0] == ["", "", [1.0]]
    assert zero[1][0] == "FailedPrecondition" and "rank 1: NOT_FOUND" in zero[1][1] and one[1][0] == "NotFound"
    assert zero[2][0] == one[2][0] == "FailedPrecondition" and "it has version 1" in zero[2][1]
    assert zero[3][0] == one[3][0] == "FailedPrecondition" and "rank 1" in zero[3][1] and "out of memory" in zero[3][1]
    for rank in (zero, one):
        assert [step[2] for step in rank] == [[1.0], [1.0], [1.0], [1.0], [3.0]]
        assert "has version 1 again" in rank[3][1]
