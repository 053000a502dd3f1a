"""convert_single_tensor_to_hf against what the reference adapter gave."""

import json
import struct

import pytest

import refit
from conftest import DATA
from refit import _refit
from refit.families import option_texts

CASES = [case for case in json.loads((DATA / "golden" / "cases.json").read_text()) if case["op"].startswith("convert")]
FAMILIES = json.loads((DATA / "golden/families/cases.json").read_text())
SIZES = {"n_routed_experts": "experts", "moe_inter_dim": "expert_width"}
ROUTER = "model.layers.0.moe.gate.scale"
DOWN = "model.layers.3.moe.experts.down_projs"


def load(name):
    """(dtype, shape, bytes) of each tensor of a safetensors file."""
    content = (DATA / "golden" / name).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    data = content[8 + length :]
    return {key: (value["dtype"], value["shape"], data[slice(*value["data_offsets"])]) for key, value in header.items()}


def convert(name, dtype, shape, data, exclude, adapter="gemma4_moe", options=None):
    """(dtype, shape, bytes) by name, through the native half: no array library knows all element types."""
    part = _refit.Part(name, dtype, shape)
    address, size, _ = _refit.read_buffer(data)
    outputs = _refit.convert_single(
        adapter=adapter,
        native=part,
        memory=_refit.Lent(address, size, data),
        exclude_key_regex=exclude,
        dtype=None,
        adapter_options=option_texts(options),
    )
    return {
        to.name: (to.dtype, list(to.shape), data if memory is None else bytes(memoryview(memory)))
        for to, memory in outputs
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_equals_the_reference(case):
    native = load(case["input"])
    exclude = case["args"].get("exclude_key_regex", "")

    def run():
        result = {}
        for name, (dtype, shape, data) in native.items():
            result.update(convert(name, dtype, shape, data, exclude))
        return result

    if case.get("error"):
        with pytest.raises(refit.InvalidArgument, match="layers.N"):
            run()
        return
    expected = load(case["output"])
    assert run() == expected


@pytest.mark.parametrize("case", FAMILIES, ids=lambda case: case["id"].replace("/", "-"))
def test_every_family_equals_the_reference(case):
    exclude = case["args"].get("exclude_key_regex", "")
    options = {
        SIZES.get(key, key): value for key, value in case["args"].items() if key not in ("dtype", "exclude_key_regex")
    }

    def run():
        result = {}
        for name, tensor in load("families/" + case["input"]).items():
            result.update(convert(name, *tensor, exclude, case["family"], options))
        return result

    if case.get("error"):
        with pytest.raises(refit.InvalidArgument, match="experts"):
            run()
        return
    try:
        result = run()
    except refit.InvalidArgument:
        assert case.get("accept_error")
        return
    expected = load("families/" + case["output"])
    assert result == expected
    assert case.get("order_free") or list(result) == list(expected)


def test_a_family_is_recognised_by_its_names():
    tensors = {
        name: (dtype, shape) for name, (dtype, shape, _) in load("families/glm4_moe/whole_0.in.safetensors").items()
    }
    name, why = refit.recognise_adapter(tensors)
    assert name == "glm4_moe" and "gate_and_up_projs" in why
    assert {known["name"] for known in refit.known_adapters()} >= {"glm4_moe", "identity"}


def test_takes_torch_tensors_and_gives_torch_tensors():
    torch = pytest.importorskip("torch")
    native = torch.arange(4 * 6 * 8, dtype=torch.float32).reshape(4, 6, 8).bfloat16()
    (name, down), (scale_name, scale) = refit.convert_single_tensor_to_hf(DOWN, native)
    assert (name, scale_name) == ("model.layers.3.experts.down_proj", "model.layers.3.router.per_expert_scale")
    assert torch.equal(down, native.transpose(-2, -1)) and down.is_contiguous()
    assert torch.equal(scale, torch.ones(4, dtype=torch.bfloat16))
    # A view that is not contiguous is legal, and a cast is rounded as torch rounds.
    transposed = torch.randn(4, 8, 6).transpose(-2, -1)
    ((_, cast), _) = refit.convert_single_tensor_to_hf(DOWN, transposed, dtype="bf16")
    assert torch.equal(cast, transposed.transpose(-2, -1).bfloat16())


def test_what_only_changes_its_name_is_the_same_object():
    tensor = memoryview(bytes(8)).cast("f")
    ((name, same),) = refit.convert_single_tensor_to_hf(ROUTER, tensor)
    assert name == "model.layers.0.router.scale" and same is tensor


def test_excluded_gives_nothing_and_other_arguments_of_the_reference_are_accepted():
    tensor = memoryview(bytes(8)).cast("f")
    assert refit.convert_single_tensor_to_hf(ROUTER, tensor, exclude_key_regex=r".*moe\.gate", quantization=False) == []


def test_an_expert_tensor_of_one_dimension_is_refused_by_name():
    with pytest.raises(refit.InvalidArgument) as error:
        refit.convert_single_tensor_to_hf(DOWN, memoryview(bytes(8)).cast("f"))
    assert DOWN in str(error.value)
