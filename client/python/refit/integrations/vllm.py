"""vLLM: the weight transfer backend ``refit``, and a worker extension for every version.

The package's entry point in ``vllm.general_plugins`` calls register() in each vLLM process, so that
``--weight-transfer-config '{"backend": "refit"}'`` works: workers from vLLM 0.22 on, which is the first to take other
backends than its own, trainers from 0.28 on. For older versions there is ``--worker-extension-cls
refit.integrations.vllm.RefitWorkerExtension``. See docs/vllm.md.
"""

from __future__ import annotations

from typing import Any, Optional

from refit.errors import InvalidArgument
from refit.integrations import vllm_reload
from refit.subscriber import Subscriber

BACKEND = "refit"


def register() -> None:
    """Names the backend to vLLM's factories, as far as there are any. May be called again; harmless without vLLM."""
    try:
        from vllm.distributed.weight_transfer import factory
    except ImportError:
        return
    _register(factory, "WeightTransferEngineFactory", "vllm_worker", "RefitWeightTransferEngine")
    _register(factory, "WeightTransferTrainerFactory", "vllm_trainer", "RefitTrainerWeightTransferEngine")


def _register(factories: Any, factory_name: str, module: str, engine: str) -> None:
    factory = getattr(factories, factory_name, None)
    if factory is None or BACKEND in getattr(factory, "_registry", ()):
        return
    factory.register_engine(BACKEND, f"refit.integrations.{module}", engine)


class RefitWorkerExtension:
    """Methods that vLLM adds to its workers; call them with collective_rpc.

    ::

        llm.collective_rpc("refit_update", args=("host:port", 42))
    """

    model_runner: Any

    def refit_update(
        self, address: str, version: int, *, trainer_epoch: Optional[int] = None, **options: Any
    ) -> int:
        """Pulls a version, all of it and verified, and loads it.

        Args:
            address: of the service.
            version: a number: workers that asked for the latest could get different ones.
            trainer_epoch: only of this run of the trainer: what a former one has left under that number is not taken.
            options: Subscriber's, such as model or token_file.
        Returns:
            The version.
        Raises:
            RefitError: as Subscriber.pull(); the model is as it was then. What the model's own load_weights raises
                comes out as it is; the model may hold weights of two versions then.
        """
        if not isinstance(version, int):
            raise InvalidArgument(f"version {version!r}: expected a number, so that all workers load the same")
        with Subscriber(address, **options) as subscriber:
            pulled = subscriber.pull(version, trainer_epoch=trainer_epoch)
        model = self.model_runner.model
        with vllm_reload.on_device(getattr(self, "device", None)):
            try:
                vllm_reload.begin(model)
                vllm_reload.load(model, pulled)
            finally:
                vllm_reload.finish(model, getattr(self.model_runner, "model_config", None))
        return pulled.number
