"""vLLM's receiving half of the backend ``refit``, which its factory imports: one engine in each worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Optional

from refit.errors import FailedPrecondition
from refit.integrations import vllm_reload
from refit.subscriber import PulledVersion, Subscriber

try:
    from vllm.distributed.weight_transfer.base import (
        WeightTransferEngine,
        WeightTransferInitInfo,
        WeightTransferUpdateInfo,
    )
except ImportError as error:
    raise ImportError(
        f"refit's weight transfer engine needs vLLM >= 0.16, with vllm.distributed.weight_transfer: {error}; older "
        "versions take --worker-extension-cls refit.integrations.vllm.RefitWorkerExtension"
    ) from error


@dataclass
class RefitInitInfo(WeightTransferInitInfo):
    """Where the versions come from. JSON throughout.

    Attributes:
        address: of the service.
        model: whose versions.
        timeout: patience for each word of the service, seconds.
        channel: options of the connection: transport, ca, token_file, ...; see refit.Subscriber. Files are the
            workers'.
    """

    address: str
    model: str = "default"
    timeout: float = 60.0
    channel: Dict[str, Any] = field(default_factory=dict)


@dataclass
class RefitUpdateInfo(WeightTransferUpdateInfo):
    """Attributes:
    version: which one to load; it is committed, or being pushed.
    trainer_epoch: only of this run of the trainer.
    """

    version: int
    trainer_epoch: Optional[int] = None


class RefitWeightTransferEngine(WeightTransferEngine[RefitInitInfo, RefitUpdateInfo]):
    """Pulls a version, all of it and verified, and only then begins to load it: a pull that fails leaves the model as
    it was (before vLLM 0.23 the worker itself begins before the pull).

    Constructed as the installed vLLM does it: (config, parallel_config), and a model, or a vllm_config, in newer
    versions.
    """

    init_info_cls = RefitInitInfo
    update_info_cls = RefitUpdateInfo

    _subscriber: Optional[Subscriber] = None
    _timeout = 60.0
    _is_reloading = False

    def init_transfer_engine(self, init_info: RefitInitInfo) -> None:
        """Raises refit.Unavailable, naming the address, if there is no service."""
        self.shutdown()
        self._subscriber = Subscriber(init_info.address, model=init_info.model, **init_info.channel)
        self._timeout = init_info.timeout

    def start_weight_update(self, *_: Any, **__: Any) -> None:
        self._is_reloading = False

    def receive_weights(
        self, update_info: RefitUpdateInfo, load_weights: Optional[Callable[[Iterable[Any]], Any]] = None
    ) -> None:
        """
        Args:
            load_weights: the worker's, up to vLLM 0.22, which has begun a reload itself.
        Raises:
            refit.RefitError: as refit.Subscriber.pull().
        """
        if self._subscriber is None:
            raise FailedPrecondition("the engine is not initialised: init_transfer_engine() comes first")
        version = self._subscriber.pull(
            update_info.version, trainer_epoch=update_info.trainer_epoch, idle_timeout=self._timeout
        )
        if load_weights is not None:
            load_weights(list(version))
            return
        self._load(version)

    def _load(self, version: PulledVersion) -> None:
        """Layers that a failure left without new weights get their old ones back."""
        try:
            if not self._is_reloading:
                self._is_reloading = True
                vllm_reload.begin(self.model)
            vllm_reload.load(self.model, version)
        except BaseException:
            self.finish_weight_update()
            raise

    def finish_weight_update(self) -> None:
        if self._is_reloading:
            self._is_reloading = False
            vllm_reload.finish(self.model, self.model_config)

    def shutdown(self) -> None:
        if self._subscriber is not None:
            self._subscriber.close()
        self._subscriber = None

    @staticmethod
    def trainer_send_weights(iterator: Iterable[Any], trainer_args: Dict[str, Any]) -> None:
        """vLLM 0.17 to 0.27: pushes one version from the trainer.

        Args:
            iterator: (name, tensor).
            trainer_args: "address" and "version"; "publisher" and "options" are refit.Publisher's and its version()'s.
        """
        from refit.publisher import Publisher

        publisher = {"adapter": "identity", **trainer_args.get("publisher", {})}
        with Publisher(trainer_args["address"], **publisher) as connection:
            with connection.version(trainer_args["version"], **trainer_args.get("options", {})) as version:
                version.push(iterator)
