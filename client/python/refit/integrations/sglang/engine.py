"""What of SGLang itself is used, and only where SGLang has imported it."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, Callable, List

from refit.integrations.sglang.request import LOADER
from refit.integrations.shared.failures import told


def groups() -> List[Any]:
    """SGLang's group of the tensor-parallel workers, on the CPU. Its pipeline stages get an update one after another,
    and cannot wait for each other."""
    import torch.distributed as dist

    state = sys.modules.get("sglang.srt.distributed.parallel_state")
    if state is None or not dist.is_available() or not dist.is_initialized():
        return []
    context = sys.modules.get("sglang.srt.runtime_context")  # newer versions'
    return [(state.get_tp_group() if context is None else context.get_parallel().tp_group).cpu_group]


def forget_embeddings() -> None:
    """Forgets images that the old vision tower has encoded: SGLang's flush_cache leaves them, and looks them up by the
    image alone."""
    for name in ("sglang.srt.managers.mm_schedule", "sglang.srt.managers.mm_utils"):  # of newer versions, of older ones
        cache = getattr(sys.modules.get(name), "embedding_cache", None)
        if cache is not None:
            cache.clear()


def register() -> None:
    """Has SGLang's workers answer with what went wrong, instead of ending. SGLang calls this itself, as a plugin
    (``sglang.srt.plugins``), where the package is installed. For processes with a scheduler; harmless in others."""
    if "sglang.srt.managers.scheduler" not in sys.modules:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    updater = "sglang.srt.model_executor.model_runner_components.weight_updater"
    try:
        has_updater = importlib.util.find_spec(updater) is not None
    except ModuleNotFoundError:
        has_updater = False
    owner = f"{updater}.WeightUpdater" if has_updater else "sglang.srt.model_executor.model_runner.ModelRunner"
    HookRegistry.register(f"{owner}.update_weights_from_tensor", answered, HookType.AROUND)


def answered(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """SGLang's scheduler ends, and the server with it, if a loader raises. This answers the request instead."""
    try:
        return original(*args, **kwargs)
    except Exception as error:
        if kwargs.get("load_format") != LOADER:
            raise
        return False, told(error)
