"""NeMo Automodel trains a tiny Gemma4 MoE, or a Qwen3 MoE; a worker's transformers model is the same, after each version."""

from __future__ import annotations

import pathlib
from typing import Any, Dict

import pytest

import refit

torch = pytest.importorskip("torch", reason="NeMo Automodel is for torch")
pytest.importorskip("nemo_automodel", reason="needs NeMo Automodel: pip install nemo-automodel")

from automodel_processes import start, trainer, worker, wait_for  # noqa: E402
from automodel_tiny import Layout  # noqa: E402

LAYOUTS = {
    "one rank": Layout(),
    "FSDP over 2 ranks": Layout(ranks=2, offloaded=True),
    "FSDP over 3 ranks, uneven": Layout(ranks=3),
    "FSDP over 2 ranks, twice": Layout(ranks=4, replicas=2),
    "experts over 2 ranks": Layout(ranks=2, expert_parallel=2, activation_checkpointing=True),
    "experts over 2 by 2 ranks": Layout(ranks=4, expert_parallel=2),
    "Qwen3, one rank": Layout(family="qwen3_moe"),
    "Qwen3, experts over 2 ranks": Layout(ranks=2, expert_parallel=2, family="qwen3_moe"),
}
VERSIONS = (1, 2)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_worker_has_what_the_trainer_has(layout: Layout, tmp_path: pathlib.Path) -> None:
    with refit.serve(memory="256MiB", retain=len(VERSIONS)) as service:
        ranks = [start(trainer, service.address, tmp_path, layout, rank, VERSIONS) for rank in range(layout.ranks)]
        wait_for([*ranks, start(worker, service.address, tmp_path, VERSIONS, layout.family)])
    for version in VERSIONS:
        trained, installed = (torch.load(tmp_path / f"{role}-{version}.pt") for role in ("trainer", "worker"))
        assert_same(installed["tensors"], trained["tensors"])
        torch.testing.assert_close(installed["logits"], trained["logits"], rtol=0, atol=1e-4)
    assert_trained(tmp_path)


def assert_same(pulled: Dict[str, Any], expected: Dict[str, Any]) -> None:
    """Names, dtypes, shapes, and each bit."""
    assert sorted(pulled) == sorted(expected)
    for name, tensor in expected.items():
        assert (pulled[name].dtype, pulled[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(bits(pulled[name]), bits(tensor)), name


def bits(tensor: Any) -> Any:
    return tensor.contiguous().view(-1).view(torch.uint8)


def assert_trained(folder: pathlib.Path) -> None:
    """Every weight of the language model has changed between the versions: else the test would show nothing."""
    first, last = (torch.load(folder / f"worker-{version}.pt")["tensors"] for version in (VERSIONS[0], VERSIONS[-1]))
    unchanged = {name for name, tensor in last.items() if torch.equal(tensor, first[name])}
    assert unchanged == {name for name in last if is_no_text_weight(name)}


def is_no_text_weight(name: str) -> bool:
    """What text does not train: the vision tower, layers' scales (buffers), experts' (all ones)."""
    return "vision" in name or name.endswith(("layer_scalar", "per_expert_scale"))
