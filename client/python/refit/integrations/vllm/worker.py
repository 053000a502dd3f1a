"""vLLM's receiving half of the backend ``refit``, which its factory imports: one engine in each worker."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Optional

from refit.errors import FailedPrecondition, InvalidArgument
from refit.integrations.shared.agreement import Agreement
from refit.integrations.shared.ahead import Ahead
from refit.integrations.vllm.install import Installer, agreement_of
from refit.integrations.vllm.ranks import is_last
from refit.version_number import version_number

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

_log = logging.getLogger("vllm.refit")

# Seconds by which one rank may connect, and look at its checkpoint, later than another.
_CONNECT_SKEW = 120.0


@dataclass
class RefitInitInfo(WeightTransferInitInfo):
    """Where the versions come from. JSON throughout.

    Attributes:
        address: of the service.
        model: whose versions.
        timeout: patience for each word of the service, seconds.
        deadline: how long the engine may stand still for a version that has not come whole, seconds. What is pulled
            ahead goes on after that: the next update finds it.
        ahead: each new version is pulled beside the engine while it is pushed, so that an update has only to load it.
            False saves the host's memory for one version, where the service is on another host.
        allow_partial: versions may lack tensors of the model, whose former values then stay.
        keep_base: the version in use is kept in this host's memory as well, so that of the next one only the changes
            come over the network: host memory for one more version in each worker, all the time. Where the service is
            on this host nothing moves anyway, and nothing is kept.
        channel: options of the connection: transport, ca, token_file, ...; see refit.Subscriber. Files are the
            workers'.
    """

    address: str
    model: str = "default"
    timeout: float = 60.0
    deadline: float = 120.0
    ahead: bool = True
    allow_partial: bool = False
    keep_base: bool = False
    channel: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.address, str) or not self.address:
            raise InvalidArgument(f"init_info: address {self.address!r}: expected the service's, such as 'host:50051'")
        _check_seconds("init_info: timeout", self.timeout)
        _check_seconds("init_info: deadline", self.deadline)


@dataclass
class RefitUpdateInfo(WeightTransferUpdateInfo):
    """Attributes:
    version: which one to load; it is committed, or being pushed.
    trainer_epoch: only of this run of the trainer.
    deadline: as RefitInitInfo's, for this update.
    """

    version: int
    trainer_epoch: Optional[int] = None
    deadline: Optional[float] = None

    def __post_init__(self) -> None:
        self.version = version_number(self.version)
        if self.deadline is not None:
            _check_seconds("update_info: deadline", self.deadline)


class RefitWeightTransferEngine(WeightTransferEngine[RefitInitInfo, RefitUpdateInfo]):
    """Each version is pulled beside the engine, all of it and verified. An update checks it against the model, on all
    ranks, and only then loads it, whole, before it returns: there is nothing for finish_weight_update() to do, and no
    step of the engine ever meets a model that is half loaded.

    Constructed as the installed vLLM does it: (config, parallel_config), and a model, or a vllm_config, in newer
    versions. For vLLM up to 0.22 see receive_weights().
    """

    init_info_cls = RefitInitInfo
    update_info_cls = RefitUpdateInfo

    _ahead: Optional[Ahead] = None
    _deadline = 0.0
    _agreement: Optional[Agreement] = None
    _allow_partial = False
    _has_voted = False

    def parse_init_info(self, init_dict: Dict[str, Any]) -> Optional[RefitInitInfo]:
        """None if it is wrong and the last rank is to raise; see update_weights()."""
        try:
            info: RefitInitInfo = super().parse_init_info(init_dict)
            return info
        except Exception:
            if is_last():
                raise
            return None

    def init_transfer_engine(self, init_info: Optional[RefitInitInfo]) -> None:
        """Connects all ranks or none. Raises refit.Unavailable, naming the address, if there is no service; where there
        are several ranks, on the last one."""
        self.shutdown()
        if self._agreement is None:
            self._agreement = agreement_of(self.parallel_config)
        if init_info is None:
            return
        try:
            with self._agreement.all_or_none(deadline=_CONNECT_SKEW, way_out="call it again"):
                self._connect(init_info)
        except Exception as error:
            self.shutdown()
            if is_last():
                raise
            _log.warning("refit: no connection, as the last rank tells: %s", error)

    def _connect(self, init_info: RefitInitInfo) -> None:
        self._ahead = Ahead(
            init_info.address,
            model=init_info.model,
            timeout=init_info.timeout,
            is_ahead=init_info.ahead,
            keep_base=init_info.keep_base,
            channel=init_info.channel,
        )
        self._deadline = init_info.deadline
        self._allow_partial = init_info.allow_partial
        self._installer().learn()

    def start_weight_update(self) -> None:
        """Does nothing: the engine goes on until the version is there."""

    def update_weights(self, update_info: Dict[str, Any]) -> None:
        """vLLM's worker calls this. Either all ranks load the version or none does.

        Raises:
            refit.RefitError: as receive_weights(); where there are several ranks, on the last one only. vLLM's executor
                (0.32) reads no further than the first rank that failed, and would take the other ranks' answers for
                those to its next call.
        """
        self._has_voted = False
        try:
            try:
                self.receive_weights(self.parse_update_info(update_info))
            except BaseException as error:
                if self._agreement is not None and not self._has_voted:
                    self._agreement.settle(error, deadline=self._deadline)  # the other ranks wait for word of this one
                raise
        except Exception as error:
            if is_last() or not _end_update(sys._getframe(1).f_locals.get("self")):
                raise
            _log.warning("refit: the update failed, as the last rank tells: %s", error)

    def receive_weights(
        self, update_info: RefitUpdateInfo, load_weights: Optional[Callable[[Iterable[Any]], Any]] = None
    ) -> None:
        """
        Args:
            load_weights: the worker's, up to vLLM 0.22, which has begun a reload itself: there a pull that fails
                leaves the model without weights until the next update.
        Raises:
            refit.RefitError: as Installer.install().
        """
        if self._ahead is None:
            raise FailedPrecondition("the engine is not initialised: init_transfer_engine() comes first")
        deadline = self._deadline if update_info.deadline is None else update_info.deadline
        take = self._ahead.take(update_info.version, update_info.trainer_epoch, deadline)
        self._has_voted = True
        self._installer().install(
            take, self._ahead.pull, deadline=deadline, allow_partial=self._allow_partial, load=load_weights
        )

    def finish_weight_update(self) -> None:
        """Does nothing: an update is whole when update_weights() returns."""

    def shutdown(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
        self._ahead = None

    def _installer(self) -> Installer:
        """Of the model that vLLM has set as this update's target."""
        model = getattr(self, "model", None)  # vLLM up to 0.21 keeps it to itself
        installers: Dict[int, Installer] = self.__dict__.setdefault("_installers", {})
        if id(model) not in installers:
            installers[id(model)] = Installer(
                model,
                getattr(self, "model_config", None),
                getattr(self, "vllm_config", None),
                agreement=self._agreement,
            )
        return installers[id(model)]

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


def _end_update(worker: Any) -> bool:
    """Clears the mark of an update under way that a worker of vLLM's keeps, as it does itself if update_weights raises.
    False: it has none of this name."""
    if not hasattr(worker, "_weight_update_active"):
        return False
    worker._weight_update_active = False
    return True


def _check_seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InvalidArgument(f"{name} {value!r}: expected seconds, above 0")
