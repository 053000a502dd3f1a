"""vLLM's weight transfer in several versions, stand-ins' and the installed one's, a worker and a model of it."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import SimpleNamespace
from typing import Any, Dict, Optional

import pytest
import stand_ins
from integrations_support import torch, weights

from refit.integrations import vllm as plug

BASE = "vllm.distributed.weight_transfer.base"
FACTORY = "vllm.distributed.weight_transfer.factory"
FRESH = ["refit.integrations.vllm.worker", "refit.integrations.vllm.trainer", "refit.integrations.vllm_trainer"]
STAND_INS = ["vllm_0_16", "vllm_0_22", "vllm_0_28", "vllm_0_33"]


class Vllm:
    """vllm.distributed.weight_transfer of one version."""

    def __init__(self, base: Any, factory: Any):
        self.base, self.factory = base, factory

    def engine_class(self) -> Any:
        return self.factory.WeightTransferEngineFactory._registry["refit"]()

    def has_trainer(self) -> bool:
        return hasattr(self.base, "TrainerWeightTransferEngine")

    def source(self, module: Any) -> Any:
        return self.base.ModuleSource(module)


@pytest.fixture(params=STAND_INS + ["installed"])
def vllm(request: Any, monkeypatch: Any) -> Vllm:
    if request.param != "installed":
        base, factory = stand_ins.load(request.param), stand_ins.load("vllm_factory")
        stand_ins.use(monkeypatch, {BASE: base, FACTORY: factory}, fresh=FRESH)
        return Vllm(base, factory)
    try:
        base, factory = importlib.import_module(BASE), importlib.import_module(FACTORY)
    except Exception as error:  # an installation without its dependencies fails in many ways
        pytest.skip(f"vLLM cannot be imported: {error!r}")
    for name in FRESH:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(factory.WeightTransferEngineFactory, "_registry", {})
    if hasattr(factory, "WeightTransferTrainerFactory"):
        monkeypatch.setattr(factory.WeightTransferTrainerFactory, "_registry", {})
    return Vllm(base, factory)


class Model(torch.nn.Module):
    """Loads by name, as vLLM's models do. Every tensor has a layer of its own."""

    def __init__(self, tensors: Dict[str, Any]):
        super().__init__()
        self.fails_to_fill = 0  # so many times
        self.names = list(tensors)
        self.layers = torch.nn.ModuleList()
        for tensor in tensors.values():
            layer = torch.nn.Module()
            layer.register_parameter("p", torch.nn.Parameter(torch.zeros_like(tensor), requires_grad=False))
            layer.p.weight_loader = self._fill
            self.layers.append(layer)

    def load_weights(self, pairs: Any) -> None:
        for name, tensor in pairs:
            if name not in self.names:
                raise ValueError(f"There is no module or parameter named {name!r}")
            parameter = self.layers[self.names.index(name)].p
            parameter.weight_loader(parameter, tensor)

    def _fill(self, param: Any, loaded: Any) -> None:
        if self.fails_to_fill and not param.is_meta and param.shape == self.layers[2].p.shape:
            self.fails_to_fill -= 1
            raise MemoryError("no memory is left")
        param.data.copy_(loaded)

    def forward(self) -> str:
        return "an answer"

    def values(self) -> Dict[str, Any]:
        return {name: layer.p.detach() for name, layer in zip(self.names, self.layers)}


class Worker:
    """One of vLLM's, as far as weights go: how it makes the engine and calls it, by version."""

    def __init__(self, vllm: Vllm, model: Model):
        self.model = model
        self._reload = reload_module()
        if self._reload is not None:
            self._reload.record_metadata_for_reloading(model)
        base = vllm.base.WeightTransferEngine
        known = {
            "config": None,
            "parallel_config": None,
            "device": torch.device("cpu"),
            "model": model,
            "vllm_config": SimpleNamespace(parallel_config=None, model_config=None),
        }
        names = [name for name in inspect.signature(base.__init__).parameters if name != "self"]
        self.engine = vllm.engine_class()(*[known[name] for name in names])
        self._owns_reload = "load_weights" in inspect.signature(base.receive_weights).parameters

    def init_weight_transfer_engine(self, init_info: Dict[str, Any]) -> None:
        self.engine.init_transfer_engine(self.engine.parse_init_info(init_info))

    def start_weight_update(self) -> None:
        if not self._owns_reload:
            self.engine.start_weight_update()

    def update_weights(self, update_info: Dict[str, Any]) -> None:
        info = self.engine.parse_update_info(update_info)
        if not self._owns_reload:
            self.engine.receive_weights(info)
            return
        if self._reload is not None:
            self._reload.initialize_layerwise_reload(self.model)
        self.engine.receive_weights(info, load_weights=self.model.load_weights)
        if self._reload is not None:
            self._reload.finalize_layerwise_reload(self.model, None)

    def finish_weight_update(self, weight_version: Optional[str] = None) -> None:
        if not self._owns_reload:
            self.engine.finish_weight_update()


def reload_module() -> Any:
    try:
        return importlib.import_module("vllm.model_executor.model_loader.reload")
    except ImportError:
        return None


def update(worker: Worker, version: int) -> None:
    worker.start_weight_update()
    worker.update_weights({"version": version})
    worker.finish_weight_update()


@pytest.fixture
def worker(vllm: Vllm, service: Any) -> Worker:
    plug.register()
    made = Worker(vllm, Model(weights()))
    made.init_weight_transfer_engine({"address": service.address})
    return made
