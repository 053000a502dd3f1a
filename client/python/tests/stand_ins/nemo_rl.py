"""NeMo-RL's nemo_rl/utils/checkpoint_engines/base.py and its driver, as read in 2026."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any, Dict, List


class CheckpointEngine(ABC):
    cleanup_after_load = True

    @abstractmethod
    def prepare(self) -> Any: ...

    @abstractmethod
    def init_policy_process_group(
        self, *, worker_rank: int, train_world_size: int, rollout_world_size: int, metadata: List[Any]
    ) -> None: ...

    @abstractmethod
    def init_rollout_process_group(
        self, *, rollout_rank: int, train_world_size: int, rollout_world_size: int, metadata: List[Any]
    ) -> None: ...

    @abstractmethod
    async def send_weights(self, weights: Any) -> None: ...

    @abstractmethod
    def receive_weight_batches(self) -> Any: ...

    def finalize(self) -> None: ...


class Refit:
    """The steps of NeMo-RL's synchronizer, in one process."""

    def __init__(self, backend: str, bucket_size: int, policies: int, rollouts: int, **settings: Any):
        module, name = backend.split(":", 1)
        engine = getattr(importlib.import_module(module), name)
        settings = {"release_after_refit": False, **settings}  # NeMo-RL's plugin settings always bring it
        self.policies = [engine(bucket_size=bucket_size, **settings) for _ in range(policies)]
        self.rollouts = [engine(bucket_size=bucket_size, **settings) for _ in range(rollouts)]
        self.connect()

    def connect(self) -> None:
        ranked: List[Dict[str, Any]] = [{**one.prepare(), "rank": rank} for rank, one in enumerate(self.policies)]
        topology = dict(
            metadata=ranked + [one.prepare() for one in self.rollouts],
            train_world_size=len(self.policies),
            rollout_world_size=len(self.rollouts),
        )
        for rank, one in enumerate(self.rollouts):  # in any order
            one.init_rollout_process_group(rollout_rank=rank, **topology)
        for rank, one in enumerate(self.policies):
            one.init_policy_process_group(worker_rank=rank, **topology)

    def shutdown(self) -> None:
        for one in self.policies + self.rollouts:
            one.finalize()
