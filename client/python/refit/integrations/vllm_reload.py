"""How vLLM loads weights into a model that runs already.

After its first load vLLM may keep weights in its kernels' own layout. Its layerwise reload (from vLLM 0.16 on) takes
those in the checkpoint's layout again; older versions have load_weights alone.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from typing import Any, Callable, ContextManager, Iterable, Optional


def on_device(device: Any) -> ContextManager[Any]:
    """Around the three below: where older versions make a layer's new tensors. None: torch's default."""
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
    return getattr(_module("vllm.model_executor.model_loader.reload"), name, None)


def _without_mtp_check() -> ContextManager[Any]:
    """Trainers need not have the layers for multi-token prediction, which newer versions insist on in a first load."""
    validation = _module("vllm.model_executor.model_loader.mtp_validation")
    return nullcontext() if validation is None else validation.disable_mtp_completeness_check()


def _module(name: str) -> Any:
    """One of vLLM's modules, or None if this vLLM has no such. What it fails to import itself comes out."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("vllm"):
            raise
        return None
