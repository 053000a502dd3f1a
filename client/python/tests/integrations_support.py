"""What the plugs' tests share: weights."""

from __future__ import annotations

from typing import Any, Dict

import pytest

torch = pytest.importorskip("torch", reason="the plugs are for torch")

import refit  # noqa: E402


def weights(seed: int = 0) -> Dict[str, Any]:
    """Names of a model in Hugging Face's form; all bit patterns of bfloat16, NaNs too."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int, dtype: Any = torch.bfloat16) -> Any:
        bits = torch.randint(-(2**15), 2**15, shape, dtype=torch.int16, generator=generator)
        return bits.view(torch.bfloat16) if dtype == torch.bfloat16 else bits.to(dtype)

    return {
        "model.embed_tokens.weight": some(64, 16),
        "model.layers.0.mlp.experts.gate_up_proj": some(4, 16, 24),
        "model.layers.0.input_layernorm.weight": some(16, dtype=torch.float32),
        "model.layers.0.scale": some(dtype=torch.float32),
        "model.position_ids": some(8, dtype=torch.int64),
    }


def same(got: Any, expected: Any) -> bool:
    """Bit for bit."""
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        return False
    as_bytes = [tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in (got, expected)]
    return bool(torch.equal(*as_bytes))


def all_same(got: Dict[str, Any], expected: Dict[str, Any]) -> bool:
    return list(got) == list(expected) and all(same(got[name], expected[name]) for name in expected)


def publish(address: str, version: int, tensors: Dict[str, Any], **options: Any) -> None:
    with refit.Publisher(address, adapter="identity", **options) as publisher:
        with publisher.version(version, rank=0, world=1) as v:
            v.push(tensors)
