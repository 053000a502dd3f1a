"""What vLLM adds to its workers: methods that load versions, for every version of vLLM."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from refit.errors import FailedPrecondition
from refit.integrations.shared.ahead import Ahead
from refit.integrations.vllm.install import Installer, agreement_of
from refit.integrations.vllm.ranks import is_last
from refit.pulled_version import PulledVersion
from refit.version_number import version_number

_log = logging.getLogger("vllm.refit")


class RefitWorkerExtension:
    """Methods that vLLM adds to its workers; call them with collective_rpc.

    ::

        llm.collective_rpc("refit_follow", args=("host:port",))      # once: versions are pulled beside the engine
        llm.collective_rpc("refit_update", args=("host:port", 42))   # after each commit
        llm.reset_prefix_cache()                                     # it has the old weights' values
    """

    model_runner: Any

    def refit_follow(self, address: str, **options: Any) -> None:
        """From now on each new version is pulled beside the engine while it is pushed; refit_update() only loads it.

        Args:
            address, options: as refit_update()'s.
        """
        self._refit_state().connect(address, options, is_ahead=True)

    def refit_update(
        self,
        address: str,
        version: int,
        *,
        trainer_epoch: Optional[int] = None,
        deadline: float = 120.0,
        allow_partial: bool = False,
        **options: Any,
    ) -> Optional[int]:
        """Loads a version, all of it and verified, on all ranks or on none. The worker's own caches of the old weights'
        values (encoder, multimodal, LoRA) are emptied; the prefix cache is the caller's: LLM.reset_prefix_cache().

        Args:
            address: of the service.
            version: a number: workers that asked for the latest could get different ones.
            trainer_epoch: only of this run of the trainer: what a former one has left under that number is not taken.
            deadline: how long the engine may stand still until the version is there, seconds.
            allow_partial: it may lack tensors of the model, whose former values then stay.
            options: Subscriber's, such as model or token_file; and keep_base, see worker.RefitInitInfo.
        Returns:
            The version; None on a rank that has failed and leaves it to the last rank to raise.
        Raises:
            RefitError: as install.Installer.install(). Where there are several ranks, on the last one.
        """
        version = version_number(version)
        updates = self._refit_state()
        take = updates.take(address, options, version, trainer_epoch, deadline)
        try:
            installed = updates.installer().install(take, updates.pull, deadline=deadline, allow_partial=allow_partial)
        except Exception as error:
            if is_last():
                raise
            _log.warning("refit: the update failed, as the last rank tells: %s", error)
            return None
        self._refit_empty_caches()
        return installed.version

    def _refit_state(self) -> "_Updates":
        if not hasattr(self, "_refit_updates"):
            self._refit_updates = _Updates(self)
        return self._refit_updates

    def _refit_empty_caches(self) -> None:
        """As vLLM's own reload_weights() does; older versions have fewer of them."""
        for name in ("reset_lora_state", "reset_encoder_cache", "reset_mm_cache"):
            reset = getattr(self.model_runner, name, None)
            if reset is not None:
                reset()


class _Updates:
    """What a worker keeps from one refit_update() to the next."""

    def __init__(self, worker: Any):
        self._worker = worker
        self._ahead: Optional[Ahead] = None
        self._source: Any = None
        self._installer: Optional[Installer] = None

    def connect(self, address: str, options: Dict[str, Any], *, is_ahead: bool) -> Ahead:
        """The connection to this service, made if there is none."""
        if self._ahead is None or self._source != (address, options) or (is_ahead and not self._ahead.is_ahead):
            if self._ahead is not None:
                self._ahead.close()
            self._ahead = None
            named = {name: options[name] for name in ("model", "worker", "keep_base") if name in options}
            channel = {name: value for name, value in options.items() if name not in named}
            self._ahead = Ahead(address, is_ahead=is_ahead, channel=channel, **named)
            self._source = (address, options)
        return self._ahead

    @contextmanager
    def take(
        self, address: str, options: Dict[str, Any], version: int, trainer_epoch: Optional[int], deadline: float
    ) -> Iterator[PulledVersion]:
        """As Ahead.take()."""
        with self.connect(address, options, is_ahead=False).take(version, trainer_epoch, deadline) as pulled:
            yield pulled

    def pull(self, version: int, trainer_epoch: int) -> PulledVersion:
        """From the service that the last version came from."""
        if self._ahead is None:
            raise FailedPrecondition("there is no connection to the service")
        return self._ahead.pull(version, trainer_epoch)

    def installer(self) -> Installer:
        if self._installer is None:
            runner = self._worker.model_runner
            self._installer = Installer(
                runner.model,
                getattr(runner, "model_config", None),
                getattr(runner, "vllm_config", None),
                getattr(self._worker, "device", None),
                agreement=agreement_of(getattr(self._worker, "parallel_config", None)),
            )
            self._installer.learn()
        return self._installer
