"""What Automodel's users do to a model before they push it: it reaches the worker as it is, or is refused by name."""

from __future__ import annotations

from typing import Any, Callable, Dict

import pytest

import refit

torch = pytest.importorskip("torch", reason="NeMo Automodel is for torch")
pytest.importorskip("nemo_automodel", reason="needs NeMo Automodel: pip install nemo-automodel")

import automodel_tiny as tiny  # noqa: E402
from automodel_processes import start, wait_for  # noqa: E402

EXTRA_STATE = r".*_extra_state.*"


def cast_masters(address: str) -> None:
    """F32 masters, served as BF16: cast as torch casts."""
    model = tiny.native_model()
    pulled = round_trip(address, model.state_dict(), dtype="bf16")
    expected = {name: tensor.to(torch.bfloat16) for name, tensor in tiny.by_its_own_adapter(model).items()}
    assert_equal(pulled, expected)


def bf16_parameters(address: str) -> None:
    model = tiny.native_model().to(torch.bfloat16)
    assert_equal(round_trip(address, model.state_dict()), tiny.by_its_own_adapter(model))


def frozen_tower(address: str) -> None:
    """What is not trained is in a version too: a worker may have begun with other weights."""
    model = tiny.native_model()
    model.model.vision_tower.requires_grad_(False)
    assert_equal(round_trip(address, model.state_dict()), tiny.by_its_own_adapter(model))


def extra_state(address: str) -> None:
    """Transformer Engine's modules put bytes beside their weights."""
    model = tiny.native_model()
    expected = tiny.by_its_own_adapter(model)
    projection = model.model.language_model.layers["0"].self_attn.q_proj
    projection.__class__ = type("Linear", (torch.nn.Linear,), {"get_extra_state": lambda self: torch.zeros(3).byte()})
    refused(address, model.state_dict(), "self_attn.q_proj._extra_state", "exclude_key_regex")
    assert_equal(round_trip(address, model.state_dict(), exclude_key_regex=EXTRA_STATE), expected)


def meta(address: str) -> None:
    """A layer that was never materialised. The refused version is no obstacle to the next."""
    model = tiny.native_model()
    state = model.state_dict()
    name = "model.language_model.norm.weight"
    refused(address, {**state, name: state[name].to("meta")}, name, "meta")
    assert_equal(round_trip(address, state), tiny.by_its_own_adapter(model))


def parameters_alone(address: str) -> None:
    """named_parameters() has neither buffers nor the tied lm_head: a strict worker says which are missing."""
    pulled = round_trip(address, tiny.native_model().named_parameters())
    with pytest.raises(RuntimeError, match="Missing.*layer_scalar.*lm_head.weight"):
        tiny.twin().load_state_dict(pulled, strict=True)


def compiled(address: str) -> None:
    """torch.compile(model) is a wrapper with names of its own, which would be converted by halves. Push the model
    within."""
    wrapper = torch.compile(tiny.native_model())
    refused(address, wrapper.state_dict(), "_orig_mod.", "a wrapper of the module")
    tiny.twin().load_state_dict(round_trip(address, wrapper._orig_mod.state_dict()), strict=True)


def adapters_beside(address: str) -> None:
    """LoRA that was not merged: what no engine has as a weight does not get in unseen."""
    from nemo_automodel.components._peft.lora import PeftConfig, apply_lora_to_linear_modules

    model = tiny.native_model()
    apply_lora_to_linear_modules(model, PeftConfig(target_modules=["*q_proj", "*experts"], dim=4))
    with pytest.raises(RuntimeError, match="Unexpected.*lora_"):
        tiny.twin().load_state_dict(round_trip(address, model.state_dict()), strict=True)


@pytest.mark.parametrize(
    "habit",
    [cast_masters, bf16_parameters, frozen_tower, extra_state, meta, parameters_alone, compiled, adapters_beside],
    ids=lambda habit: habit.__name__,
)
def test_habit(habit: Callable[[str], None]) -> None:
    with refit.serve(memory="256MiB") as service:
        wait_for([start(habit, service.address)])


def round_trip(address: str, state: Any, **options: Any) -> Dict[str, Any]:
    """Pushed, and pulled."""
    with refit.Publisher(address) as publisher:
        _, last = publisher.last_run()
        with publisher.version(last + 1, **options) as version:
            version.push(state)
    return dict(refit.Subscriber(address).pull(last + 1))


def refused(address: str, state: Any, tensor: str, reason: str) -> None:
    with pytest.raises(refit.InvalidArgument, match=reason) as error:
        round_trip(address, state)
    assert tensor in str(error.value)


def assert_equal(pulled: Dict[str, Any], expected: Dict[str, Any]) -> None:
    assert sorted(pulled) == sorted(expected)
    for name, tensor in expected.items():
        assert pulled[name].dtype == tensor.dtype and torch.equal(pulled[name], tensor), name
