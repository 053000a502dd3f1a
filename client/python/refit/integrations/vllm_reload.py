"""How vLLM loads weights into a model that runs already.

After its first load vLLM may keep weights in its kernels' own layout. Its layerwise reload (from vLLM 0.16 on) takes those
in the checkpoint's layout again; older versions have load_weights alone.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Callable, ContextManager, Iterable, Optional


def on_device(device: Any) -> ContextManager[Any]:
    """Around the three below: where older versions make a layer's new tensors. None: where torch makes them by default."""
    if device is None:
        return nullcontext()
    import torch

    return torch.device(device)  # type: ignore[return-value]


def begin(model: Any) -> None:
    """From here on the model has no weights of its own, until finish(): call it when all new ones are at hand."""
    initialize = _reload_function("initialize_layerwise_reload")
    if initialize is not None:
        initialize(model)


def load(model: Any, weights: Iterable[Any]) -> None:
    """(name, tensor) pairs under the checkpoint's names, all or some of them."""
    with _without_mtp_check():
        model.load_weights(iter(weights))


def finish(model: Any, model_config: Any) -> None:
    finalize = _reload_function("finalize_layerwise_reload")
    if finalize is not None:
        finalize(model, model_config)


def _reload_function(name: str) -> Optional[Callable[..., Any]]:
    try:
        from vllm.model_executor.model_loader import reload
    except ImportError:
        return None
    return getattr(reload, name, None)


def _without_mtp_check() -> ContextManager[Any]:
    """Trainers need not have the layers for multi-token prediction, which newer versions insist on in a first load."""
    try:
        from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check
    except ImportError:
        return nullcontext()
    return disable_mtp_completeness_check()
