"""refit.integrations.vllm: the workers' half and the extension, against several vLLM versions' interfaces."""

from __future__ import annotations

import importlib
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import stand_ins
import vllm_support
from integrations_support import all_same, publish, torch, weights
from vllm_support import FACTORY, FRESH, Model, Vllm, Worker, reload_module, update

import refit
from refit.integrations import vllm as plug

vllm, worker = vllm_support.vllm, vllm_support.worker  # fixtures


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
    if reload_module() is None and not worker._owns_reload:  # nothing to ask beforehand, no checkpoint to go back to
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
    reload_module().record_metadata_for_reloading(draft)
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
    elif reload_module() is None:
        pytest.skip("vLLM cannot be imported")
    model = Model(weights())
    if is_there:
        reload_module().record_metadata_for_reloading(model)
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
