"""refit.integrations.sglang: the loader, called as SGLang does."""

from __future__ import annotations

import base64
import importlib.util
import json
import pickle
import subprocess
import sys
from typing import Any, Dict

import pytest
from integrations_support import all_same, publish, torch, weights

import refit
from refit.integrations.sglang import DESCRIPTOR, LOADER, descriptor, load, update_request


class Model:
    def __init__(self) -> None:
        self.loaded: Dict[str, Any] = {}

    def load_weights(self, named_tensors: Any) -> None:
        self.loaded.update(named_tensors)


def test_a_version_arrives_bit_for_bit(service: Any) -> None:
    publish(service.address, 3, weights(3), model="policy")
    model = Model()
    load(model, descriptor(service.address, 3, model="policy"))
    assert all_same(model.loaded, weights(3))


def test_options_reach_the_pull(service: Any) -> None:
    publish(service.address, 1, weights())
    model = Model()
    load(model, descriptor(service.address, 1, filter="layernorm", transport="wire", worker="tp0"))
    assert list(model.loaded) == ["model.layers.0.input_layernorm.weight"]


def test_a_version_that_is_not_there_leaves_the_model(service: Any) -> None:
    publish(service.address, 1, weights())
    model = Model()
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
        load(Model(), named_tensors)


def test_a_descriptor_is_checked_where_it_is_made(service: Any) -> None:
    with pytest.raises(refit.InvalidArgument, match="'latest': expected a number"):
        descriptor("host:1", "latest")  # type: ignore[arg-type]
    with pytest.raises(refit.InvalidArgument, match="version 1: .*JSON"):
        descriptor("host:1", 1, filter=object())
    with pytest.raises(refit.InvalidArgument, match="unheard_of"):
        load(Model(), descriptor(service.address, 1, unheard_of=1))


def test_a_request_is_json_and_holds_the_descriptor_by_value(service: Any) -> None:
    publish(service.address, 1, weights())
    body = json.loads(json.dumps(update_request(service.address, 1, tensor_parallel=2, worker="tp")))
    assert (body["load_format"], body["weight_version"]) == (LOADER, "1")
    assert len(body["serialized_named_tensors"]) == 2
    for payload in body["serialized_named_tensors"]:
        pickled = base64.b64decode(payload)
        assert b"multiprocessing" not in pickled
        model = Model()
        load(model, pickle.loads(pickled))
        assert all_same(model.loaded, weights())


def test_sglang_reads_a_request_of_an_unrelated_process(service: Any) -> None:
    if importlib.util.find_spec("sglang") is None:
        pytest.skip("SGLang is not installed")
    publish(service.address, 1, weights())
    payload = update_request(service.address, 1, tensor_parallel=1)["serialized_named_tensors"][0]
    program = "import sys; from sglang.srt.utils.common import MultiprocessingSerializer as s; "
    program += "print(s.deserialize(sys.argv[1])[0][1].numel())"
    done = subprocess.run([sys.executable, "-c", program, payload], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and int(done.stdout.split()[-1]) > 0, done.stderr


def test_sglangs_own_updater_serialises_it_and_calls_the_loader(service: Any) -> None:
    """Its serialisation (to bytes and back) and its update_weights_from_tensor(), on the CPU."""
    try:
        common = importlib.import_module("sglang.srt.utils.common")
        updater = importlib.import_module("sglang.srt.model_executor.model_runner_components.weight_updater")
    except Exception as error:  # an installation without its dependencies fails in many ways
        pytest.skip(f"SGLang's weight updater cannot be imported: {error!r}")
    publish(service.address, 1, weights())
    wire = common.MultiprocessingSerializer.serialize(descriptor(service.address, 1))
    named_tensors = common.MultiprocessingSerializer.deserialize(wire)
    model = Model()
    name = "refit.integrations.sglang.load"
    assert common.dynamic_import(name) is load
    _update(updater, model, named_tensors, name)
    assert all_same(model.loaded, weights())


def _update(updater: Any, model: Any, named_tensors: Any, name: str) -> None:
    """WeightUpdater.update_weights_from_tensor() on the few things that it reads of itself."""

    class Self:
        device = "cpu"
        custom_weight_loaders = [name]

        def get_model(self) -> Any:
            return model

        def _assert_weight_cache_inactive(self, _: str) -> None: ...

    class Parallel:
        tp_rank = 0

    class Device:
        @staticmethod
        def current_device() -> str:
            return "cpu"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "get_parallel", lambda: Parallel)
        patch.setattr(updater, "_unsupported_derived_weight_cache_error", lambda _: None)
        patch.setattr(updater.torch, "get_device_module", lambda _: Device)
        ok, message = updater.WeightUpdater.update_weights_from_tensor(Self(), named_tensors, load_format=name)
    assert ok, message
