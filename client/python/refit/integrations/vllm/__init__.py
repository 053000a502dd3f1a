"""vLLM: the weight transfer backend ``refit``, and a worker extension for every version.

The package's entry point in ``vllm.general_plugins`` calls register() in each vLLM process, so that
``--weight-transfer-config '{"backend": "refit"}'`` works: workers from vLLM 0.22 on, which is the first to take other
backends than its own, trainers from 0.28 on. For older versions there is ``--worker-extension-cls
refit.integrations.vllm.RefitWorkerExtension``. See docs/vllm.md.
"""

from __future__ import annotations

from typing import Any

from refit.integrations.vllm.extension import RefitWorkerExtension

__all__ = ["BACKEND", "RefitWorkerExtension", "register"]

BACKEND = "refit"


def register() -> None:
    """Names the backend to vLLM's factories, as far as there are any. May be called again; harmless without vLLM."""
    try:
        from vllm.distributed.weight_transfer import factory
    except ImportError:
        return
    _register(factory, "WeightTransferEngineFactory", "worker", "RefitWeightTransferEngine")
    _register(factory, "WeightTransferTrainerFactory", "trainer", "RefitTrainerWeightTransferEngine")


def _register(factories: Any, factory_name: str, module: str, engine: str) -> None:
    factory = getattr(factories, factory_name, None)
    if factory is None or BACKEND in getattr(factory, "_registry", ()):
        return
    factory.register_engine(BACKEND, f"{__name__}.{module}", engine)
