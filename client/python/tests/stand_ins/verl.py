"""verl.checkpoint_engine's base class and registry, as in verl 0.8 and 0.9, and one step of its manager."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Dict, List, Optional, Tuple


class CheckpointEngineRegistry:
    _registry: Dict[str, Any] = {}

    @staticmethod
    def register(backend: str) -> Any:
        def wrapper(cls: Any) -> Any:
            CheckpointEngineRegistry._registry[backend] = cls
            return cls

        return wrapper

    @classmethod
    def get(cls, backend: str) -> Any:
        return cls._registry[backend]

    @classmethod
    def new(cls, backend: str, *args: Any, **kwargs: Any) -> Any:
        return cls._registry[backend](*args, **kwargs)


class CheckpointEngine(ABC):
    @abstractmethod
    def prepare(self) -> Dict[str, Any]: ...

    @classmethod
    @abstractmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: List[Dict[str, Any]]
    ) -> Tuple[Dict[str, List[Any]], Dict[str, List[Any]]]: ...

    @abstractmethod
    def init_process_group(self, **kwargs: Any) -> None: ...

    @abstractmethod
    def finalize(self) -> None: ...

    @abstractmethod
    async def send_weights(self, weights: Any, global_steps: Optional[int] = None) -> None: ...

    @abstractmethod
    async def receive_weights(self, global_steps: Optional[int] = None) -> Any: ...


def connect(actors: List[Any], rollouts: List[Any]) -> None:
    """As CheckpointEngineManager.build_process_group() does, in one process."""
    metadata = [one.prepare() for one in actors + rollouts]
    of_actors, of_rollouts = type(actors[0]).build_topology(len(actors), len(rollouts), metadata)
    for workers, arguments in ((actors, of_actors), (rollouts, of_rollouts)):
        assert all(len(values) == len(workers) for values in arguments.values())
        for index, worker in enumerate(workers):
            worker.init_process_group(**{name: values[index] for name, values in arguments.items()})
