"""The workers of one vLLM engine, who hold one model between them."""

from __future__ import annotations

import importlib
from typing import Any, List, Tuple


def groups(parallel_config: Any) -> List[Any]:
    """torch.distributed's groups, on the CPU, that reach all of them; none without vLLM's.

    Replicas of a data-parallel server are engines of their own. They step together, so one that waited here for
    another could wait for ever.
    """
    state = _parallel_state()
    if state is None:
        return []
    if getattr(parallel_config, "data_parallel_size", 1) == 1 and state._WORLD is not None:
        return [state._WORLD.cpu_group]
    return [group.cpu_group for group in (state._TP, state._PP) if group is not None]


def is_last() -> bool:
    """This worker is the one whose answer vLLM's executor reads after all others'."""
    return all(rank == size - 1 for rank, size in _places())


def _places() -> List[Tuple[int, int]]:
    """(rank in group, size of group), for tensor and pipeline parallelism."""
    state = _parallel_state()
    held = [] if state is None else [group for group in (state._TP, state._PP) if group is not None]
    return [(group.rank_in_group, group.world_size) for group in held]


def _parallel_state() -> Any:
    try:
        return importlib.import_module("vllm.distributed.parallel_state")
    except ImportError:  # a stand-in, or another version
        return None
