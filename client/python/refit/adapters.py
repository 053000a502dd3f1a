"""Conversion without a service."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from refit import _refit
from refit.dtypes import cast_name
from refit.intake import is_torch, lend
from refit.tensors import Tensor


def convert_single_tensor_to_hf(
    fqn: str, tensor: Any, *, exclude_key_regex: str = "", dtype: Any = None, adapter: str = "gemma4_moe", **_: Any
) -> List[Tuple[str, Any]]:
    """As NeMo Automodel's Gemma4 MoE adapter: what a native tensor becomes, as (Hugging Face name, tensor).

    Router keys are renamed, expert tensors renamed and transposed in the last two dimensions, and a down projection is
    followed by its per_expert_scale, all ones. What only changes its name is the same object.

    Args:
        fqn: the native name.
        tensor: in host memory, of any library (see refit.intake); the outputs are of torch if it is, else refit.Tensor.
        exclude_key_regex: Python ``re.match`` on `fqn`: what matches becomes nothing.
        dtype: what floating-point outputs are cast to; None: no cast.
        adapter: whose conversion.
    Raises:
        InvalidArgument: naming the tensor, where the reference raises too.
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
