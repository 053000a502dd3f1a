"""refit.integrations.vllm.trainer, against several vLLM versions' interfaces."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Optional

import pytest
import stand_ins
import vllm_support
from integrations_support import all_same, torch
from vllm_support import FRESH, Model, Vllm, Worker

import refit
from refit.integrations import vllm as plug

vllm = vllm_support.vllm  # a fixture


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
