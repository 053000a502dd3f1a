"""vllm.distributed.weight_transfer.base as in vLLM 0.33: a source's metadata is an attribute, its passes have names."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Iterator, List, Tuple

from stand_ins.vllm_0_28 import (  # noqa: F401
    ParamMeta,
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)


class ModuleSource:
    def __init__(self, module: Any) -> None:
        self._module = module

    @cached_property
    def metadata(self) -> List[ParamMeta]:
        return [ParamMeta(name, p.dtype, tuple(p.shape)) for name, p in self._module.named_parameters()]

    def iter_full(self) -> Iterator[Tuple[str, Any]]:
        return iter(self._module.named_parameters())
