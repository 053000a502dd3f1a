"""Converts native tensors without a service."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from refit import _refit
from refit.dtypes import cast_name
from refit.intake import is_torch, lend
from refit.tensors import Tensor


def convert_single_tensor_to_hf(
    fqn: str, tensor: Any, *, exclude_key_regex: str = "", dtype: Any = None, adapter: str = "gemma4_moe", **_: Any
) -> List[Tuple[str, Any]]:
    """Converts a native tensor as NeMo Automodel's Gemma4 MoE adapter does. Returns (Hugging Face name, tensor) pairs.

    Router keys are renamed. Expert tensors are renamed, and their last two dimensions transposed. A per_expert_scale of
    ones follows each down projection. A tensor that only changes its name is returned as the same object.

    Args:
        fqn: the native name.
        tensor: in host memory, of any library (see refit.intake). Outputs are torch tensors if it is one, else
            refit.Tensor.
        exclude_key_regex: Python ``re.match`` on `fqn`. A tensor that matches has no outputs.
        dtype: element type of floating-point outputs; None: no cast.
        adapter: which conversion.
    Raises:
        InvalidArgument: naming the tensor, in the cases in which NeMo's adapter raises too.
    """
    lease = lend(fqn, tensor)
    outputs = _refit.convert_single(
        adapter=adapter,
        native=_refit.Part(fqn, lease.dtype, lease.shape),
        memory=lease.memory,
        exclude_key_regex=exclude_key_regex,
        dtype=cast_name(dtype),
    )
    return [(part.name, _as(tensor, memory)) for part, memory in outputs]


def _as(tensor: Any, memory: Optional["_refit.TensorMemory"]) -> Any:
    if memory is None:
        return tensor
    return Tensor(memory).torch() if is_torch(tensor) else Tensor(memory)
