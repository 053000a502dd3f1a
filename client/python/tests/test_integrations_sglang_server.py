"""refit.integrations.sglang: what SGLang's server does around the loader, by the page and in its own modules."""

from __future__ import annotations

import base64
import collections
import importlib
import importlib.util
import json
import pathlib
import pickle
import subprocess
import sys
from typing import Any, Dict

import pytest
from integrations_support import all_same, publish, torch, weights
from sglang_model import PlainModel

import refit
from refit.integrations.sglang import LOADER, descriptor, load, register, update_request
from refit.integrations.sglang.engine import answered


def test_encoded_images_are_forgotten(service: Any, monkeypatch: Any) -> None:
    class Module:
        embedding_cache = {"image": 1}

    monkeypatch.setitem(sys.modules, "sglang.srt.managers.mm_schedule", Module)
    publish(service.address, 1, weights())
    with pytest.raises(refit.NotFound):
        load(PlainModel(), descriptor(service.address, 2))
    assert Module.embedding_cache
    load(PlainModel(), descriptor(service.address, 1))
    assert not Module.embedding_cache


def test_a_failure_is_an_answer_of_sglangs_worker_and_not_its_end(service: Any) -> None:
    """The plugin's hook, around what SGLang's updater does."""

    def update(model: Any, named_tensors: Any, load_format: str) -> Any:
        assert load_format == LOADER
        load(model, named_tensors)
        return True, "Success"

    publish(service.address, 1, weights())
    model = PlainModel()
    done, words = answered(update, model, descriptor(service.address, 7), load_format=LOADER)
    assert not done and "7" in words and model.loaded == {}
    good = descriptor(service.address, 1)
    assert answered(update, model, good, load_format=LOADER) == (True, "Success")

    def others(*_: Any, **__: Any) -> Any:
        raise KeyError("w")

    assert answered(others, load_format=LOADER) == (False, "KeyError: 'w'")
    with pytest.raises(KeyError):  # another loader's business
        answered(others, load_format="theirs")


def test_a_request_is_json_and_holds_the_descriptor_by_value(service: Any) -> None:
    publish(service.address, 1, weights())
    body = json.loads(json.dumps(update_request(service.address, 1, tensor_parallel=2, worker="tp")))
    assert (body["load_format"], body["weight_version"]) == (LOADER, "1")
    assert len(body["serialized_named_tensors"]) == 2
    for payload in body["serialized_named_tensors"]:
        pickled = base64.b64decode(payload)
        assert b"multiprocessing" not in pickled
        model = PlainModel()
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


class Server:
    """SGLang's five routes as far as the page's recipe goes, and what they leave behind. In the place of `requests`."""

    def __init__(self) -> None:
        self.model = PlainModel()
        self.is_paused = self.has_session = False
        self.fails = ""  # this route, once; before or after it has done what it does
        self.is_heard = False

    def post(self, url: str, json: Dict[str, Any]) -> "Server":
        route = url.rpartition("/")[2]
        fails, self.fails = route == self.fails, "" if route == self.fails else self.fails
        if not fails or self.is_heard:
            getattr(self, route)(json)
        if fails:
            raise ConnectionError(route)
        return self

    def raise_for_status(self) -> None: ...

    def pause_generation(self, body: Dict[str, Any]) -> None:
        assert body["mode"] in ("retract", "abort")
        self.is_paused = True

    def begin_weight_update(self, _: Any) -> None:
        if self.has_session:
            raise RuntimeError("a weight-update session is already open; call end_weight_update() first")
        self.has_session = True

    def update_weights_from_tensor(self, body: Dict[str, Any]) -> None:
        assert self.is_paused and self.has_session and body["load_format"] == LOADER
        load(self.model, pickle.loads(base64.b64decode(body["serialized_named_tensors"][0])))

    def end_weight_update(self, _: Any) -> None:
        if not self.has_session:
            raise RuntimeError("no weight-update session is open")
        self.has_session = False

    def continue_generation(self, _: Any) -> None:
        self.is_paused = False


def run_recipe(server: Server, address: str, version: int) -> None:
    """The page's, to the letter."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "sglang.md").read_text(encoding="utf-8")
    recipe = next(part for part in page.split("```python\n") if "pause_generation" in part).split("```")[0]
    code = recipe.replace("42", str(version)).replace("refit.example:50051", address)
    exec(code, {"refit": refit, "requests": server, "url": "http://host:1", "model": torch.nn.Linear(2, 2)})


@pytest.mark.parametrize("is_heard", [False, True])
@pytest.mark.parametrize(
    "route", ["pause_generation", "begin_weight_update", "update_weights_from_tensor", "end_weight_update"]
)
def test_after_the_pages_recipe_the_engine_goes_on_whichever_post_fails(
    service: Any, route: str, is_heard: bool
) -> None:
    server = Server()
    server.fails, server.is_heard = route, is_heard
    with pytest.raises((ConnectionError, RuntimeError)):
        run_recipe(server, service.address, 1)
    assert not server.is_paused
    if server.has_session:  # its end was not heard: the next recipe ends it
        assert route == "end_weight_update"
        with pytest.raises(RuntimeError, match="already open"):
            run_recipe(server, service.address, 2)
    run_recipe(server, service.address, 3)
    assert not server.is_paused and not server.has_session and set(server.model.loaded) == {"weight", "bias"}


def sglangs(name: str) -> Any:
    """The installed SGLang's module."""
    try:
        return importlib.import_module(f"sglang.srt.{name}")
    except Exception as error:  # an installation without its dependencies fails in many ways
        pytest.skip(f"sglang.srt.{name} cannot be imported: {error!r}")


def test_sglangs_own_updater_serialises_it_and_calls_the_loader(service: Any) -> None:
    """Its serialisation (to bytes and back) and its update_weights_from_tensor(), on the CPU."""
    common = sglangs("utils.common")
    updater = sglangs("model_executor.model_runner_components.weight_updater")
    publish(service.address, 1, weights())
    wire = common.MultiprocessingSerializer.serialize(descriptor(service.address, 1))
    named_tensors = common.MultiprocessingSerializer.deserialize(wire)
    model = PlainModel()
    assert common.dynamic_import(LOADER) is load
    assert _update(updater, model, named_tensors) == (True, "Success")
    assert all_same(model.loaded, weights())


def test_sglangs_own_hooks_make_a_failure_an_answer(service: Any, monkeypatch: Any) -> None:
    hooks = sglangs("plugins.hook_registry")
    updater = sglangs("model_executor.model_runner_components.weight_updater")
    owner = updater.WeightUpdater
    monkeypatch.setattr(owner, "update_weights_from_tensor", owner.update_weights_from_tensor)  # until the test's end
    monkeypatch.setattr(hooks.HookRegistry, "_hooks", collections.defaultdict(list))
    monkeypatch.setattr(hooks.HookRegistry, "_patched", set())
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.scheduler", object())
    with pytest.raises(refit.NotFound):  # as it is without the plugin: the scheduler ends
        _update(updater, PlainModel(), descriptor(service.address, 7))
    register()
    hooks.HookRegistry.apply_hooks()
    done, words = _update(updater, PlainModel(), descriptor(service.address, 7))
    assert not done and "NOT_FOUND" in words


def test_sglangs_own_request_takes_every_field(service: Any) -> None:
    io_struct = sglangs("managers.io_struct")
    body = update_request(service.address, 1, tensor_parallel=1)
    request = io_struct.UpdateWeightsFromTensorReqInput(**body)
    assert request.flush_cache and request.weight_version == "1"
    assert io_struct.PauseGenerationReqInput(mode="retract").mode == "retract"
    assert io_struct.BeginWeightUpdateReqInput() and io_struct.EndWeightUpdateReqInput()
    assert io_struct.ContinueGenerationReqInput()


def _update(updater: Any, model: Any, named_tensors: Any) -> Any:
    """WeightUpdater.update_weights_from_tensor() on the few things that it reads of itself."""

    class Self:
        device = "cpu"
        custom_weight_loaders = [LOADER]

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
        return updater.WeightUpdater.update_weights_from_tensor(Self(), named_tensors, load_format=LOADER)
