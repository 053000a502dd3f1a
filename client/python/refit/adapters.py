"""Converts native tensors without a service, and tells by their names how."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Tuple

from refit import _refit
from refit.dtypes import cast_name
from refit.families import option_texts
from refit.intake import is_torch, items_of, lend
from refit.tensors import Tensor
from refit.version import part_of


def recognise_adapter(tensors: Any) -> Tuple[str, str]:
    """(name, why) of the adapter that these native tensors, by name, point to; what "auto" takes.

    Raises:
        InvalidArgument: if several fit, or only somebody who knows the engine can say.
    """
    return _refit.recognise([part_of(name, tensor) for name, tensor in items_of(tensors)])


def convert_single_tensor_to_hf(
    fqn: str,
    tensor: Any,
    *,
    exclude_key_regex: str = "",
    dtype: Any = None,
    adapter: str = "gemma4_moe",
    adapter_options: Optional[Mapping[str, Any]] = None,
    **_: Any,
) -> List[Tuple[str, Any]]:
    """Converts a native tensor as NeMo Automodel's adapter of the family does. Returns (Hugging Face name, tensor) pairs.

    For Gemma4 MoE, router keys are renamed; expert tensors are renamed, and their last two dimensions transposed; a
    per_expert_scale of ones follows each down projection. A tensor that only changes its name is returned as the same
    object.

    Args:
        fqn: the native name.
        tensor: in host memory, of any library (see refit.intake). Outputs are torch tensors if it is one, else
            refit.Tensor.
        exclude_key_regex: Python ``re.match``; what matches is left out. The family says whether native or Hugging Face
            names are matched.
        dtype: element type of floating-point outputs; None: no cast.
        adapter: the model family; see known_adapters().
        adapter_options: choices of the trainer's configuration, such as {"activation": "relu2"}.
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
        adapter_options=option_texts(adapter_options),
    )
    return [(part.name, _as(tensor, memory)) for part, memory in outputs]


def _as(tensor: Any, memory: Optional["_refit.TensorMemory"]) -> Any:
    if memory is None:
        return tensor
    return Tensor(memory).torch() if is_torch(tensor) else Tensor(memory)
