"""vllm.distributed.weight_transfer.base as in vLLM 0.28: the engine owns the reload, and there is a trainer's half."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Iterator, List, NamedTuple, Tuple, TypeVar

from stand_ins.vllm_0_16 import WeightTransferEngine as _Engine
from stand_ins.vllm_0_16 import TInitInfo, TUpdateInfo, WeightTransferInitInfo, WeightTransferUpdateInfo  # noqa: F401

TTrainerInitInfo = TypeVar("TTrainerInitInfo")


class WeightTransferEngine(_Engine[TInitInfo, TUpdateInfo]):
    def __init__(self, config: Any, vllm_config: Any, device: Any, model: Any) -> None:
        super().__init__(config, vllm_config.parallel_config)
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.device = device
        self.model = model

    @abstractmethod
    def start_weight_update(self) -> None: ...

    @abstractmethod
    def finish_weight_update(self) -> None: ...

    def update_weights(self, update_info: Any) -> None:
        self.receive_weights(self.parse_update_info(update_info))  # type: ignore[call-arg]

    @abstractmethod
    def receive_weights(self, update_info: Any) -> None: ...  # type: ignore[override]


class ParamMeta(NamedTuple):
    name: str
    dtype: Any
    shape: Tuple[int, ...]


class WeightSource(ABC):
    @abstractmethod
    def metadata(self) -> List[ParamMeta]: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Tuple[str, Any]]: ...


class ModuleSource(WeightSource):
    def __init__(self, module: Any) -> None:
        self._module = module

    def metadata(self) -> List[ParamMeta]:
        return [ParamMeta(name, p.dtype, tuple(p.shape)) for name, p in self._module.named_parameters()]

    def __iter__(self) -> Iterator[Tuple[str, Any]]:
        return iter(self._module.named_parameters())


@dataclass
class TrainerInitInfo:
    """In vLLM `rank` is keyword-only, which Python 3.9 cannot say."""

    backend: ClassVar[str]
    rank: int = 0

    @property
    def is_sender(self) -> bool:
        return self.rank == 0


class TrainerWeightTransferEngine(ABC, Generic[TTrainerInitInfo]):
    init_info_cls: Any

    def __init__(self, *, client: Any, source: Any = None, is_sender: bool = True) -> None:
        self.is_sender = is_sender
        self.client = client
        self.source = source

    @classmethod
    @abstractmethod
    def trainer_init(cls, init_info: Any, *, client: Any, source: Any = None) -> Any: ...

    @abstractmethod
    def send_weights(self) -> None: ...

    def shutdown(self) -> None: ...
