"""keep_base in each plug: of the next version only the changes come over the network. What was sent, the service tells."""

from __future__ import annotations

import importlib
import re
import urllib.request
from typing import Any, Callable, Dict

import pytest
import stand_ins
import test_integrations_nemo_rl as nemo_rl
import test_integrations_verl as verl
import vllm_support
from integrations_support import all_same, publish, same, torch
from sglang_model import PlainModel
from vllm_support import Model, Vllm, Worker, update

import refit
from refit.integrations import vllm as vllm_plug
from refit.integrations.sglang import descriptor, load
from refit.integrations.shared.ahead import Ahead
from refit.integrations.torch import install_into

vllm = vllm_support.vllm  # a fixture
WIRE = {"transport": "wire"}


@pytest.fixture
def service() -> Any:
    with refit.serve(memory="256MiB", metrics="127.0.0.1:0") as running:
        yield running


@pytest.fixture
def sent(service: Any) -> Callable[[], int]:
    """Bytes that the service has sent to workers since it was asked last."""
    before = [0]

    def since() -> int:
        with urllib.request.urlopen(f"http://{service.metrics_address}/metrics") as page:
            total = int(float(re.search(r"^refit_sent_bytes_total ([\d.e+]+)", page.read().decode(), re.M).group(1)))
        before[0], last = total, before[0]
        return total - last

    return since


def steps(count: int) -> Any:
    """Versions' tensors, each with few changes since the one before."""
    state = {
        "model.embed_tokens.weight": torch.arange(200_000, dtype=torch.int32).to(torch.bfloat16).view(500, 400),
        "model.layers.0.input_layernorm.weight": torch.arange(400, dtype=torch.float32),
        "model.norm.weight": torch.arange(5000, dtype=torch.float32),
    }
    for _ in range(count):
        state = {name: value.clone() for name, value in state.items()}
        state["model.embed_tokens.weight"].view(-1)[::100] += 1
        yield state


SIZE = 400_000 + 1600 + 20_000


@pytest.mark.parametrize("keep_base", [False, True])
def test_verl(monkeypatch: Any, service: Any, sent: Callable[[], int], keep_base: bool) -> None:
    module = stand_ins.load("verl")
    stand_ins.use(monkeypatch, {"verl.checkpoint_engine": module}, fresh=[verl.PLUG])
    importlib.import_module(verl.PLUG)
    actors, rollouts = verl.workers(module, 1, 2, address=service.address, channel=WIRE, keep_base=keep_base)
    for number, tensors in enumerate(steps(3), 1):
        assert all(all_same(one, tensors) for one in verl.step(actors, rollouts, tensors, number))
        assert (sent() < 2 * SIZE / 20) == (keep_base and number > 1)


@pytest.mark.parametrize("keep_base", [False, True])
def test_nemo_rl(service: Any, sent: Callable[[], int], keep_base: bool) -> None:
    engines = nemo_rl.Refit(
        nemo_rl.BACKEND, 1 << 20, policies=1, rollouts=2, address=service.address, channel=WIRE, keep_base=keep_base
    )
    for number, tensors in enumerate(steps(3), 1):
        assert all(all_same(one, tensors) for one in nemo_rl.round_trip(engines, [tensors.items()]))
        assert (sent() < 2 * SIZE / 20) == (keep_base and number > 1)
    engines.shutdown()


@pytest.mark.parametrize("keep_base", [False, True])
def test_sglang(service: Any, sent: Callable[[], int], keep_base: bool) -> None:
    model = PlainModel()
    for number, tensors in enumerate(steps(3), 1):
        publish(service.address, number, tensors)
        load(model, descriptor(service.address, number, keep_base=keep_base, **WIRE))
        assert all_same(model.loaded, tensors)
        assert (sent() < SIZE / 20) == (keep_base and number > 1)


def test_sglang_lets_go_of_it_once_it_is_not_wanted_any_more(service: Any, sent: Callable[[], int]) -> None:
    model = PlainModel()
    for number, tensors in enumerate(steps(4), 1):
        publish(service.address, number, tensors)
        load(model, descriptor(service.address, number, keep_base=number == 1, **WIRE))
        assert (sent() < SIZE / 20) == (number == 2)


@pytest.mark.parametrize("is_ahead", [False, True])
@pytest.mark.parametrize("keep_base", [False, True])
def test_vllm_s_engine(vllm: Vllm, service: Any, sent: Callable[[], int], is_ahead: bool, keep_base: bool) -> None:
    vllm_plug.register()
    publisher = refit.Publisher(service.address)
    worker = None
    for number, tensors in enumerate(steps(3), 1):
        if worker is None:
            worker = Worker(vllm, Model(tensors))
            init = {"address": service.address, "ahead": is_ahead, "keep_base": keep_base, "channel": WIRE}
            worker.init_weight_transfer_engine(init)
        publish(service.address, number, tensors)
        if is_ahead:
            publisher.wait_for_workers(number, phase="staged", all=True, timeout=30)
        update(worker, number)
        assert all_same(worker.model.values(), tensors)
        assert (sent() < SIZE / 20) == (keep_base and number > 1)
    worker.engine.shutdown()


def test_vllm_s_engine_that_changes_what_it_is_given_is_safe(service: Any) -> None:
    ahead = Ahead(service.address, is_ahead=False, keep_base=True, channel=WIRE)
    for number, tensors in enumerate(steps(3), 1):
        publish(service.address, number, tensors)
        with ahead.take(number, None, 30) as version:
            for name, tensor in version:
                assert same(tensor, tensors[name])
                tensor.zero_()  # such as one that is scaled or fused in place
            assert bool(version.traffic.base_refused) == (number > 1)
    ahead.close()


def test_a_mapped_version_is_not_kept(service: Any) -> None:
    ahead = Ahead(service.address, is_ahead=False, keep_base=True)
    large = {"w": torch.zeros(4 << 20, dtype=torch.uint8)}
    publish(service.address, 1, large)
    with ahead.take(1, None, 30) as version:
        assert version.traffic.mapped_bytes == 4 << 20
    assert ahead._base is None
    ahead.close()


def module(tensors: Dict[str, Any]) -> Any:
    made = torch.nn.ParameterDict()
    for name, tensor in tensors.items():
        made[name.replace(".", "_")] = torch.nn.Parameter(torch.zeros_like(tensor), requires_grad=False)
    return made


def named_as_the_module(tensors: Dict[str, Any]) -> Dict[str, Any]:
    return {name.replace(".", "_"): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("keep_base", [False, True])
def test_a_module_that_takes_copies_leaves_no_base(service: Any, sent: Callable[[], int], keep_base: bool) -> None:
    """``install_into`` and ``load_state_dict`` copy."""
    model = module(next(steps(1)))
    for install in (install_into(model), lambda version: model.load_state_dict(version.state_dict())):
        name = f"m{id(install)}"
        worker = refit.Worker(service.address, model=name, install=install, keep_base=keep_base, **WIRE)
        for number, tensors in enumerate(steps(3), 1):
            publish(service.address, number, named_as_the_module(tensors), model=name)
            worker.refit()
            assert all_same(dict(model.state_dict()), named_as_the_module(tensors))
            assert (sent() < SIZE / 20) == (keep_base and number > 1)


def test_a_module_that_takes_the_tensors_themselves_is_the_base(service: Any, sent: Callable[[], int]) -> None:
    model = module(next(steps(1)))
    if "assign" not in model.load_state_dict.__code__.co_varnames:
        pytest.skip("this torch's load_state_dict only copies")
    install = lambda version: model.load_state_dict(version.state_dict(), assign=True)
    worker = refit.Worker(service.address, install=install, **WIRE)
    for number, tensors in enumerate(steps(3), 1):
        publish(service.address, number, named_as_the_module(tensors))
        worker.refit()
        assert all_same(dict(model.state_dict()), named_as_the_module(tensors))
        assert (sent() < SIZE / 20) == (number > 1)
    with torch.no_grad():
        model["model_norm_weight"] += 1  # a step of its own, in place
    publish(service.address, 4, named_as_the_module(tensors))
    worker.refit()
    assert all_same(dict(model.state_dict()), named_as_the_module(tensors))
