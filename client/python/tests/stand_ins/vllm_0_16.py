"""vllm.distributed.weight_transfer.base as in vLLM 0.16: the worker owns the reload."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

TInitInfo = TypeVar("TInitInfo")
TUpdateInfo = TypeVar("TUpdateInfo")


@dataclass
class WeightTransferInitInfo(ABC):
    pass


@dataclass
class WeightTransferUpdateInfo(ABC):
    pass


class WeightTransferEngine(ABC, Generic[TInitInfo, TUpdateInfo]):
    init_info_cls: Any
    update_info_cls: Any

    def __init__(self, config: Any, parallel_config: Any) -> None:
        self.config = config
        self.parallel_config = parallel_config

    def parse_init_info(self, init_dict: Any) -> Any:
        return self.init_info_cls(**init_dict)

    def parse_update_info(self, update_dict: Any) -> Any:
        return self.update_info_cls(**update_dict)

    @abstractmethod
    def init_transfer_engine(self, init_info: Any) -> None: ...

    @abstractmethod
    def receive_weights(self, update_info: Any, load_weights: Any) -> None: ...

    @abstractmethod
    def shutdown(self) -> None: ...
