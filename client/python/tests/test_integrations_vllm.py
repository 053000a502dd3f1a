"""refit.integrations.vllm, against the interfaces of several vLLM versions: stand-ins', and the installed one's."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import pytest
import stand_ins
from integrations_support import all_same, publish, torch, weights

import refit
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
        self._reload = _reload_module()
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


def _reload_module() -> Any:
    try:
        return importlib.import_module("vllm.model_executor.model_loader.reload")
    except ImportError:
        return None


def update(worker: Worker, version: int) -> None:
    worker.start_weight_update()
    worker.update_weights({"version": version})
    worker.finish_weight_update()


class Client:
    """VLLMWeightSyncClient over workers in this process."""

    def __init__(self, workers: List[Worker]):
        self.workers = workers
        self.calls: List[Any] = []

    def init_weight_transfer_engine(self, init_info: Dict[str, Any]) -> None:
        self._each("init_weight_transfer_engine", init_info)

    def start_weight_update(self) -> None:
        self._each("start_weight_update")

    def update_weights(self, update_info: Dict[str, Any]) -> None:
        self._each("update_weights", update_info)

    def finish_weight_update(self, weight_version: Optional[str] = None) -> None:
        self._each("finish_weight_update", weight_version)

    def _each(self, method: str, *arguments: Any) -> None:
        self.calls.append((method, *arguments))
        for worker in self.workers:
            getattr(worker, method)(*arguments)


@pytest.fixture
def worker(vllm: Vllm, service: Any) -> Worker:
    plug.register()
    made = Worker(vllm, Model(weights()))
    made.init_weight_transfer_engine({"address": service.address})
    return made


def test_the_engine_fits_the_contract(vllm: Vllm) -> None:
    plug.register()
    plug.register()  # as in a process that loads its plugins twice
    engine = vllm.engine_class()
    assert issubclass(engine, vllm.base.WeightTransferEngine) and not inspect.isabstract(engine)
    stand_ins.assert_fits(engine, vllm.base.WeightTransferEngine)


def test_versions_arrive_bit_for_bit(worker: Worker, service: Any) -> None:
    for version in (1, 2):
        publish(service.address, version, weights(version))
        update(worker, version)
        assert all_same(worker.model.values(), weights(version))
    worker.engine.shutdown()


def test_a_pull_that_fails_leaves_the_model(worker: Worker, service: Any) -> None:
    publish(service.address, 1, weights(1))
    update(worker, 1)
    worker.start_weight_update()
    with pytest.raises(refit.NotFound) as raised:
        worker.update_weights({"version": 2})
    assert raised.value.version == 2
    if not worker._owns_reload or worker._reload is None:
        assert all_same(worker.model.values(), weights(1))
    publish(service.address, 3, weights(3))
    update(worker, 3)
    assert all_same(worker.model.values(), weights(3))


def test_what_the_model_refuses_comes_out(worker: Worker, service: Any) -> None:
    publish(service.address, 1, {**weights(1), "unknown": torch.zeros(1)})
    with pytest.raises((refit.RefitError, ValueError), match="unknown") as raised:
        update(worker, 1)
    if _reload_module() is None and not worker._owns_reload:  # nothing to ask beforehand, no checkpoint to go back to
        assert "torn" in str(raised.value)
        with pytest.raises(refit.FailedPrecondition, match="torn"):
            worker.model()
    publish(service.address, 2, weights(2))
    update(worker, 2)
    assert all_same(worker.model.values(), weights(2))


def test_a_load_that_fails_in_the_middle_brings_the_former_version_back(worker: Worker, service: Any) -> None:
    _skip_where_the_worker_loads(worker)
    publish(service.address, 1, weights(1))
    update(worker, 1)
    publish(service.address, 2, weights(2))
    worker.model.fails_to_fill = 1
    with pytest.raises(refit.FailedPrecondition, match="version 2.*no memory is left.*version 1 is in use again"):
        update(worker, 2)
    assert all_same(worker.model.values(), weights(1)) and worker.model() == "an answer"
    update(worker, 2)
    assert all_same(worker.model.values(), weights(2))


def test_a_torn_model_refuses_to_run_until_it_is_whole(worker: Worker, service: Any) -> None:
    _skip_where_the_worker_loads(worker)
    publish(service.address, 1, weights(1))
    update(worker, 1)
    publish(service.address, 2, weights(2))
    worker.model.fails_to_fill = 2  # the former one too
    with pytest.raises(refit.FailedPrecondition, match="version 1 could not be loaded again.*torn"):
        update(worker, 2)
    for version in (3, 4):
        with pytest.raises(refit.FailedPrecondition, match="torn"):
            worker.model()
        with pytest.raises(refit.NotFound):
            update(worker, version)
    update(worker, 2)
    assert all_same(worker.model.values(), weights(2)) and worker.model() == "an answer"


def test_a_torn_model_runs_again_once_it_has_the_former_version(worker: Worker, service: Any) -> None:
    _skip_where_the_worker_loads(worker)
    publish(service.address, 1, weights(1))
    update(worker, 1)
    publish(service.address, 2, weights(2))
    worker.model.fails_to_fill = 2
    with pytest.raises(refit.FailedPrecondition, match="torn"):
        update(worker, 2)
    worker.model.fails_to_fill = 1
    with pytest.raises(refit.FailedPrecondition, match="version 1 is in use again"):
        update(worker, 2)
    assert all_same(worker.model.values(), weights(1)) and worker.model() == "an answer"


def _skip_where_the_worker_loads(worker: Worker) -> None:
    if worker._owns_reload:
        pytest.skip("up to vLLM 0.22 the worker itself loads")


@pytest.mark.parametrize("change", ["missing", "new", "shape", "dtype"])
def test_later_versions_must_be_like_the_first(worker: Worker, service: Any, change: str) -> None:
    publish(service.address, 1, weights(1))
    update(worker, 1)
    name, tensor = next(iter(weights(2).items()))
    others = {
        "missing": {other: value for other, value in weights(2).items() if other != name},
        "new": {**weights(2), "unheard.of": tensor},
        "shape": {**weights(2), name: tensor[:1]},
        "dtype": {**weights(2), name: tensor.to(torch.float64)},
    }
    publish(service.address, 2, others[change])
    with pytest.raises(refit.InvalidArgument, match="version 2, tensor ") as raised:
        update(worker, 2)
    assert raised.value.tensor == ("unheard.of" if change == "new" else name)
    if not worker._owns_reload:
        assert all_same(worker.model.values(), weights(1))
    publish(service.address, 3, weights(3))
    update(worker, 3)
    assert all_same(worker.model.values(), weights(3))


def test_part_of_a_model_is_for_whoever_means_it(vllm: Vllm, worker: Worker, service: Any) -> None:
    publish(service.address, 1, weights(1))
    update(worker, 1)
    name, tensor = next(iter(weights(2).items()))
    publish(service.address, 2, {name: tensor})
    worker.init_weight_transfer_engine({"address": service.address, "allow_partial": True})
    update(worker, 2)
    assert all_same(worker.model.values(), {**weights(1), name: tensor})


def test_parts_of_a_model_are_what_it_goes_back_to(worker: Worker) -> None:
    _skip_where_the_worker_loads(worker)
    with refit.serve(retain=4) as service:
        _go_back_to_parts(worker, service)


def _go_back_to_parts(worker: Worker, service: Any) -> None:
    worker.init_weight_transfer_engine({"address": service.address})
    publish(service.address, 1, weights(1))
    update(worker, 1)
    worker.init_weight_transfer_engine({"address": service.address, "allow_partial": True})
    name, tensor = next(iter(weights(2).items()))
    publish(service.address, 2, {name: tensor})
    update(worker, 2)
    before = {**weights(1), name: tensor}
    publish(service.address, 3, weights(3))
    worker.model.fails_to_fill = 1
    with pytest.raises(refit.FailedPrecondition, match="version 1 and version 2 is in use again"):
        update(worker, 3)
    assert all_same(worker.model.values(), before)
    worker.model.fails_to_fill = 2
    with pytest.raises(refit.FailedPrecondition, match="torn"):
        update(worker, 3)
    with pytest.raises(refit.InvalidArgument, match="missing|no tensor for"):
        update(worker, 2)  # a part does not make it whole
    with pytest.raises(refit.FailedPrecondition, match="torn"):
        worker.model()
    update(worker, 3)
    assert all_same(worker.model.values(), weights(3)) and worker.model() == "an answer"


def test_a_draft_model_has_versions_of_its_own(worker: Worker, service: Any) -> None:
    if not hasattr(worker.engine, "set_weight_update_target"):
        pytest.skip("this vLLM has no draft models' updates")
    draft = Model({"draft.weight": torch.zeros(3)})
    _reload_module().record_metadata_for_reloading(draft)
    publish(service.address, 1, weights(1))
    update(worker, 1)
    publish(service.address, 2, {"draft.weight": torch.arange(3.0)})
    worker.engine.set_weight_update_target(draft, None)
    update(worker, 2)
    worker.engine.reset_weight_update_target()
    assert torch.equal(draft.values()["draft.weight"], torch.arange(3.0))
    assert all_same(worker.model.values(), weights(1))
    publish(service.address, 3, weights(3))
    update(worker, 3)
    assert all_same(worker.model.values(), weights(3))


def test_versions_are_there_before_they_are_asked_for(worker: Worker, service: Any) -> None:
    publish(service.address, 1, weights(1))
    with refit.Publisher(service.address) as publisher:
        assert publisher.wait_for_workers(1, all=True, phase="staged", timeout=30) == 1
        update(worker, 1)
        assert publisher.wait_for_workers(1, all=True, phase="installed", timeout=30) == 1
    worker.engine.shutdown()


def test_what_is_held_gives_way_to_what_is_newer(worker: Worker, service: Any) -> None:
    with refit.Publisher(service.address) as publisher:
        for version in (1, 2, 3):
            publish(service.address, version, weights(version))
            assert publisher.wait_for_workers(version, all=True, phase="staged", timeout=30) == 1
        update(worker, 2)  # neither the newest nor held
        assert all_same(worker.model.values(), weights(2))
        update(worker, 3)
        assert all_same(worker.model.values(), weights(3))
        assert publisher.wait_for_workers(3, all=True, phase="installed", timeout=30) == 1
    worker.engine.shutdown()


def test_bad_infos_are_told(vllm: Vllm, worker: Worker, service: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="address"):
        worker.init_weight_transfer_engine({})
    with pytest.raises((TypeError, ValueError), match="unheard_of"):
        worker.update_weights({"version": 1, "unheard_of": 1})
    with pytest.raises(refit.Unavailable, match="127.0.0.1:1"):
        worker.init_weight_transfer_engine({"address": "127.0.0.1:1", "channel": {"connect_timeout": 0.2}})
    with pytest.raises(refit.FailedPrecondition, match="init_transfer_engine"):
        worker.engine.receive_weights(worker.engine.update_info_cls(version=1))


def trainer(vllm: Vllm, client: Client, module: Any, rank: int = 0, **settings: Any) -> Any:
    if not vllm.has_trainer():
        pytest.skip("this vLLM has no trainer's half")
    plug.register()
    from refit.integrations.vllm.trainer import RefitTrainerInitInfo

    info = RefitTrainerInitInfo(rank=rank, **settings)
    return vllm.factory.WeightTransferTrainerFactory.trainer_init(
        info, client=client, source=None if module is None else vllm.source(module)
    )


def trained(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3)).to(torch.bfloat16)


def test_programs_that_have_the_former_name_of_the_trainers_half_go_on(vllm: Vllm) -> None:
    if not vllm.has_trainer():
        pytest.skip("this vLLM has no trainer's half")
    former, present = (importlib.import_module(name) for name in (FRESH[2], FRESH[1]))
    assert former.RefitTrainerInitInfo is present.RefitTrainerInitInfo


def test_a_trainer_updates_every_worker(vllm: Vllm) -> None:
    module = trained(0)
    expected = {name: p.detach() for name, p in module.named_parameters()}
    plug.register()
    client = Client([Worker(vllm, Model(expected)) for _ in range(2)])
    engine = trainer(vllm, client, module)
    stand_ins.assert_fits(type(engine), vllm.base.TrainerWeightTransferEngine)
    for version in (1, 2):
        with torch.no_grad():
            module[0].weight.add_(1)
        engine.send_weights()
        assert all(all_same(one.model.values(), expected) for one in client.workers)
        assert [call for call in client.calls if call[0] == "finish_weight_update"][-1][1] == str(version)
    engine.shutdown()


def test_a_trainer_that_is_started_anew_goes_on_above_the_last(vllm: Vllm, service: Any) -> None:
    plug.register()
    for run in range(2):
        module = trained(run)
        expected = {name: p.detach() for name, p in module.named_parameters()}
        client = Client([Worker(vllm, Model(expected))])
        engine = trainer(vllm, client, module, address=service.address)
        engine.send_weights()
        assert all_same(client.workers[0].model.values(), expected)
        info = refit.Subscriber(service.address).pull().info
        assert (info.trainer_epoch, info.version) == (run + 1, run + 1)
        engine.shutdown()


def test_other_ranks_only_iterate(vllm: Vllm) -> None:
    client = Client([])
    engine = trainer(vllm, client, trained(0), rank=1)
    engine.send_weights()
    engine.shutdown()
    assert client.calls == []


def test_a_source_that_contradicts_its_metadata_is_told_and_no_worker_hears(vllm: Vllm, service: Any) -> None:
    module, client = trained(0), Client([])
    engine = trainer(vllm, client, module, address=service.address)
    engine.source = _Contradicting(engine.source)
    with pytest.raises(refit.InvalidArgument) as raised:
        engine.send_weights()
    assert raised.value.tensor == "0.weight" and engine.source.left == 0
    assert [call[0] for call in client.calls] == ["init_weight_transfer_engine"]
    with pytest.raises(refit.InvalidArgument, match="WeightSource"):
        trainer(vllm, client, None, address=service.address)


class _Contradicting:
    def __init__(self, source: Any):
        self.metadata = source.metadata
        self.left = 2

    def iter_full(self) -> Any:
        for name in ("0.weight", "0.bias"):
            self.left -= 1
            yield name, torch.zeros(9)


def test_old_trainers_push_through_the_engine(vllm: Vllm, service: Any) -> None:
    plug.register()
    send = vllm.engine_class().trainer_send_weights
    send(iter(weights().items()), {"address": service.address, "version": 4, "publisher": {"model": "policy"}})
    assert all_same(refit.Subscriber(service.address, model="policy").pull(4).state_dict(), weights())


def extension(model: Any) -> Any:
    made = plug.RefitWorkerExtension()
    made.model_runner = SimpleNamespace(model=model)
    return made


@pytest.mark.parametrize("is_there", [True, False])
def test_the_worker_extension_needs_nothing_of_vllm(service: Any, monkeypatch: Any, is_there: bool) -> None:
    if not is_there:
        stand_ins.without(monkeypatch, "vllm")
    elif _reload_module() is None:
        pytest.skip("vLLM cannot be imported")
    model = Model(weights())
    if is_there:
        _reload_module().record_metadata_for_reloading(model)
    publish(service.address, 1, weights(1), model="policy")
    assert extension(model).refit_update(service.address, 1, model="policy") == 1
    assert all_same(model.values(), weights(1))
    with pytest.raises(refit.NotFound):
        extension(model).refit_update(service.address, 2, model="policy")
    with pytest.raises(refit.InvalidArgument, match="'latest'"):
        extension(model).refit_update(service.address, "latest")
    assert all_same(model.values(), weights(1))


def test_register_is_harmless_without_vllm(monkeypatch: Any) -> None:
    stand_ins.without(monkeypatch, "vllm", fresh=FRESH)
    plug.register()
    for module, version in zip(FRESH, ("0.16", "0.28")):
        with pytest.raises(ImportError, match=f"needs vLLM >= {version}"):
            importlib.import_module(module)


def test_register_is_harmless_where_a_factory_is_missing(monkeypatch: Any) -> None:
    factory = stand_ins.load("vllm_factory")
    del factory.WeightTransferTrainerFactory
    stand_ins.use(monkeypatch, {FACTORY: factory}, fresh=FRESH)
    plug.register()
    assert list(factory.WeightTransferEngineFactory._registry) == ["refit"]
