"""vllm.distributed.weight_transfer.factory: registries that import an engine when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any, Dict, Optional


class WeightTransferEngineFactory:
    _registry: Dict[str, Any] = {}

    @classmethod
    def register_engine(cls, name: str, module_path_or_cls: Any, class_name: Optional[str] = None) -> None:
        if name in cls._registry:
            raise ValueError(f"Weight transfer engine '{name}' is already registered.")
        cls._registry[name] = lambda: getattr(importlib.import_module(module_path_or_cls), class_name or "")


class WeightTransferTrainerFactory(WeightTransferEngineFactory):
    _registry: Dict[str, Any] = {}

    @classmethod
    def trainer_init(cls, init_info: Any, *, client: Any, source: Any = None) -> Any:
        return cls._registry[init_info.backend]().trainer_init(init_info=init_info, client=client, source=source)
