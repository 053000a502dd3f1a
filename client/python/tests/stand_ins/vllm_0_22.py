"""vllm.distributed.weight_transfer.base as in vLLM 0.22: the engine knows the model, the worker owns the reload."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from stand_ins.vllm_0_16 import WeightTransferEngine as _Engine
from stand_ins.vllm_0_16 import TInitInfo, TUpdateInfo, WeightTransferInitInfo, WeightTransferUpdateInfo  # noqa: F401


class WeightTransferEngine(_Engine[TInitInfo, TUpdateInfo]):
    def __init__(self, config: Any, parallel_config: Any, model: Any) -> None:
        super().__init__(config, parallel_config)
        self.model = model

    @staticmethod
    @abstractmethod
    def trainer_send_weights(iterator: Any, trainer_args: Any) -> None: ...
