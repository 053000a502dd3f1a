"""A cast leaves alone what an engine wants in F32: keep_dtype_regex, over the wire and in process, on one rank and several."""

import threading

import pytest

import refit
from conftest import f32

BIAS = "model.layers.0.moe.gate.e_score_correction_bias"
SCALE = "model.layers.0.moe.gate.scale"  # which the adapter renames
STATE = {BIAS: f32(1, 2), SCALE: f32(3, 4), "model.layers.0.mlp.down_proj.weight": f32(5, 6)}
KEPT = {"dtype": "bf16", "keep_dtype_regex": r".*(e_score_correction_bias|moe\.gate\.scale)"}


def opener(service, way):
    return refit.Publisher(service.address).version if way == "wire" else service.version


@pytest.mark.parametrize("way", ["wire", "in process"])
def test_what_is_kept_is_not_cast(service, way):
    with opener(service, way)(1, **KEPT) as version:
        version.push(STATE)
    pulled = {tensor.name: tensor for tensor in refit.Subscriber(service.address).pull().tensors}
    assert {name: tensor.dtype for name, tensor in pulled.items()} == {
        BIAS: "F32",
        "model.layers.0.router.scale": "F32",
        "model.layers.0.mlp.down_proj.weight": "BF16",
    }
    assert pulled[BIAS].tolist() == [1, 2]


@pytest.mark.parametrize("way", ["wire", "in process"])
def test_a_pattern_that_keeps_nothing_is_refused(service, way):
    said = r"keep_dtype_regex 'e_score' matches none of the 3 tensors .* perhaps '\.\*e_score'"
    with pytest.raises(refit.InvalidArgument, match=said):
        with opener(service, way)(1, dtype="bf16", keep_dtype_regex="e_score") as version:
            version.push(STATE)
    with pytest.raises(refit.InvalidArgument, match="missing"):
        with opener(service, way)(2, dtype="bf16", keep_dtype_regex="(unclosed") as version:
            version.push(STATE)


def test_ranks_agree_on_what_is_kept(service):
    errors = []

    def push(rank):
        options = KEPT if rank == 0 else {"dtype": "bf16"}
        try:
            with refit.Publisher(service.address).version(1, rank=rank, world=2, **options) as version:
                version.push(STATE)
        except refit.RefitError as error:
            errors.append(error)

    ranks = [threading.Thread(target=push, args=(rank,)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert len(errors) == 2
    assert any("exclude_key_regex or keep_dtype_regex differ" in str(error) for error in errors)
