"""refit.integrations.torch: versions into a module, in place."""

from __future__ import annotations

from typing import Any, Dict

import pytest
from integrations_support import publish, same, torch

import refit
from refit.integrations.torch import install_into


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(8, 4, dtype=torch.bfloat16)
        self.norm = torch.nn.BatchNorm1d(4)
        self.lm_head = torch.nn.Linear(4, 8, bias=False, dtype=torch.bfloat16)
        self.lm_head.weight = self.embed.weight
        self.register_buffer("cache", torch.zeros(3), persistent=False)


def state(model: Any) -> Dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def new_weights(seed: int = 1) -> Dict[str, Any]:
    torch.manual_seed(seed)
    model = Model()
    model.norm.running_mean.uniform_()
    model.norm.num_batches_tracked.fill_(seed)
    return state(model)


def install(address: str, version: int, tensors: Dict[str, Any], model: Any, **options: Any) -> None:
    publish(address, version, tensors)
    refit.Worker(address, install=install_into(model, **options)).refit(version)


def test_every_parameter_and_persistent_buffer_arrives_in_place(service: Any) -> None:
    model, expected = Model(), new_weights()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    install(service.address, 1, expected, model)
    assert all(same(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert model.embed.weight.requires_grad and model.embed.weight.grad is None


def test_a_tied_parameter_may_be_missing(service: Any) -> None:
    model, expected = Model(), new_weights()
    tied = expected.pop("lm_head.weight")
    install(service.address, 1, expected, model)
    assert same(model.lm_head.weight, tied)


@pytest.mark.parametrize(
    "change, tensor, reason",
    [
        (lambda w: w.pop("norm.running_mean"), "norm.running_mean", "missing"),
        (lambda w: w.update(more=torch.zeros(2)), "more", "no such parameter"),
        (lambda w: w.update(cache=torch.zeros(3)), "cache", "no such parameter"),
        (lambda w: w.update({"norm.bias": torch.zeros(5)}), "norm.bias", "expected torch.float32 [4]"),
        (lambda w: w.update({"norm.bias": torch.zeros(4).half()}), "norm.bias", "got torch.float16 [4]"),
        (lambda w: w["lm_head.weight"].add_(1), "lm_head.weight", "tied to embed.weight"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(service: Any, change: Any, tensor: str, reason: str) -> None:
    model, tensors = Model(), new_weights()
    change(tensors)
    before = state(model)
    with pytest.raises(refit.InvalidArgument) as raised:
        install(service.address, 1, tensors, model)
    assert raised.value.tensor == tensor and raised.value.version == 1 and reason in str(raised.value)
    assert all(same(value, before[name]) for name, value in model.state_dict().items())


def test_not_strict_takes_what_there_is(service: Any) -> None:
    model, expected = Model(), new_weights()
    before = state(model)
    install(service.address, 1, {"norm.bias": expected["norm.bias"] + 1, "more": torch.ones(1)}, model, strict=False)
    assert same(model.norm.bias, expected["norm.bias"] + 1)
    assert same(model.embed.weight, before["embed.weight"])
    with pytest.raises(refit.InvalidArgument, match="norm.bias"):
        install(service.address, 2, {"norm.bias": torch.zeros(5)}, model, strict=False)


def test_a_target_on_meta_is_refused(service: Any) -> None:
    with pytest.raises(refit.InvalidArgument, match="meta"):
        install(service.address, 1, {"weight": torch.zeros(2, 2)}, torch.nn.Linear(2, 2, bias=False, device="meta"))


def three() -> Any:
    """Its second parameter is what a test makes of it."""
    return torch.nn.ParameterDict({name: torch.nn.Parameter(torch.zeros(4, 3), requires_grad=False) for name in "abc"})


def three_of(value: float) -> Dict[str, Any]:
    return {name: torch.full((4, 3), float(value)) for name in "abc"}


@pytest.mark.parametrize(
    "second, reason",
    [
        (lambda: torch.zeros(1, 3).expand(4, 3), "expanded"),
        (lambda: torch.zeros(4, 3).to_sparse(), "torch.sparse_coo, which cannot be written in place"),
    ],
)
def test_what_cannot_be_written_is_found_before_anything_is(service: Any, second: Any, reason: str) -> None:
    model = three()
    model.b = torch.nn.Parameter(second(), requires_grad=False)
    with pytest.raises(refit.InvalidArgument, match=f"version 1, tensor b: .*{reason}"):
        install(service.address, 1, three_of(1), model)
    assert not model.a.any() and not model.c.any()


def test_weights_of_inference_mode_are_written(service: Any) -> None:
    with torch.inference_mode():
        model = three()
    install(service.address, 1, three_of(1), model)
    assert all(bool((parameter == 1).all()) for parameter in model.values())


class Fails(torch.nn.Parameter):
    """Cannot be written, once."""

    times = 1

    def copy_(self, *arguments: Any, **options: Any) -> Any:
        if Fails.times:
            Fails.times -= 1
            raise RuntimeError("out of memory")
        return super().copy_(*arguments, **options)


def test_a_copy_that_fails_tears_the_model_until_a_whole_version_is_in(service: Any) -> None:
    model = three()
    Fails.times = 1
    model._parameters["b"] = Fails(torch.zeros(4, 3), requires_grad=False)
    installing = install_into(model, strict=False)
    for version in (1, 2):
        publish(service.address, version, three_of(version))
    with pytest.raises(refit.FailedPrecondition, match=r"version 1, tensor b: .*out of memory.*\(torn\)") as raised:
        installing(refit.Subscriber(service.address).pull(1))
    assert raised.value.torn and raised.value.tensor == "b"
    with pytest.raises(refit.InvalidArgument, match="torn"):
        installing(refit.Subscriber(service.address).pull(2, names=["a"]))
    installing(refit.Subscriber(service.address).pull(2))
    assert all(bool((parameter == 2).all()) for parameter in model.values())
    installing(refit.Subscriber(service.address).pull(1, names=["a"]))


def test_follow_installs_each_version(service: Any) -> None:
    model, expected = Model(), new_weights()
    publish(service.address, 1, expected)
    refit.Subscriber(service.address).follow(install_into(model), until=lambda: True)
    assert same(model.embed.weight, expected["embed.weight"])
