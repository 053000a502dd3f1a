"""vLLM's sending half of the backend ``refit``, which its factory imports: one engine in each trainer rank."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Iterable, Iterator, List, Optional, Tuple

from refit.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from refit.integrations.shared.hosting import Hosting
from refit.integrations.shared.runs import begin_run
from refit.integrations.vllm.control import Control
from refit.publisher import Publisher

try:
    from vllm.distributed.weight_transfer.base import TrainerInitInfo, TrainerWeightTransferEngine
except ImportError as error:
    raise ImportError(
        f"refit's trainer engine needs vLLM >= 0.28, with TrainerWeightTransferEngine: {error}; refit.Publisher needs "
        "none"
    ) from error


_log = logging.getLogger("vllm.refit")


@dataclass
class RefitTrainerInitInfo(TrainerInitInfo):
    """``rank`` is vLLM's: this trainer process's; rank 0 pushes, and the others only join in the source's collectives.

    Attributes:
        address: of a service; empty: rank 0 starts one.
        serve, advertise: options of that one, and this host's name for the workers; see Hosting.
        first_version: number of the first update, if the service has none that is as large: with one that has had
            others before, this run of the trainer goes on above them.
        model, adapter, adapter_options: as refit.Publisher's.
        dtype: what floating-point tensors are cast to; None: no cast.
        timeout: patience of the workers for each word of the service, seconds.
        deadline: how long an update may hold the engine for a version that has not come whole, seconds.
        stage_timeout: how long send_weights() waits for the workers to have pulled a version beside the engine,
            seconds, before it has them install it all the same. 0: workers pull it in the update, while the engine
            stands still.
        keep_base: the workers keep the version in use in host memory too, so that of the next one only the changes come;
            see worker.RefitInitInfo.
        pause: vLLM's "keep", "wait" or "abort": no request runs during an update. "": they go on, and an answer may
            come of two versions, never of a mixture of their weights.
        reset_caches: prefix, multimodal and encoder caches are emptied after each update; requests under way compute
            their prefixes anew.
        channel: options of connections, on both sides: transport, ca, token_file, ...; see refit.Publisher.
    """

    backend: ClassVar[str] = "refit"

    address: str = ""
    serve: Dict[str, Any] = field(default_factory=dict)
    advertise: str = ""
    first_version: int = 1
    model: str = "default"
    adapter: str = "identity"
    adapter_options: Dict[str, Any] = field(default_factory=dict)
    dtype: Optional[str] = None
    timeout: float = 60.0
    deadline: float = 120.0
    stage_timeout: float = 120.0
    keep_base: bool = False
    pause: str = ""
    reset_caches: bool = True
    channel: Dict[str, Any] = field(default_factory=dict)


class RefitTrainerWeightTransferEngine(TrainerWeightTransferEngine[RefitTrainerInitInfo]):
    """Commits a version, then has the workers load it. Every update is one version."""

    init_info_cls = RefitTrainerInitInfo

    @classmethod
    def trainer_init(
        cls, init_info: RefitTrainerInitInfo, *, client: Any, source: Any = None
    ) -> "RefitTrainerWeightTransferEngine":
        """Rank 0 starts the service if none is given, and tells the workers of it.

        Raises:
            InvalidArgument: without a source.
            Unavailable: naming the address, if there is no service.
        """
        if source is None:
            raise InvalidArgument("refit's trainer engine needs a WeightSource")
        engine = cls(client=client, source=source, is_sender=init_info.is_sender)
        engine.rank = init_info.rank
        if engine.is_sender:
            engine._open(init_info)
        return engine

    def _open(self, info: RefitTrainerInitInfo) -> None:
        self._hosting = Hosting(info.serve, info.advertise)
        address = info.address or self._hosting.start()
        self._publisher = Publisher(
            address, model=info.model, adapter=info.adapter, adapter_options=info.adapter_options, **info.channel
        )
        self._dtype = info.dtype
        self._epoch, self.next_version = begin_run(address, info.first_version, model=info.model, channel=info.channel)
        self._info = info
        self._control = Control(self.client, timeout=info.deadline)
        self._has_failed = False
        self.client.init_weight_transfer_engine(
            {
                "address": address,
                "model": info.model,
                "timeout": info.timeout,
                "deadline": info.deadline,
                "ahead": info.stage_timeout > 0,
                "keep_base": info.keep_base,
                "channel": info.channel,
            }
        )

    def send_weights(self) -> None:
        """One version, on every rank: pushed and committed by rank 0, then loaded by all workers. Those pull it
        meanwhile, beside their engines. After a failure the next call works.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition: naming the tensor in which the source's metadata and
                iteration differ. No worker hears of the version.
            FailedPrecondition: a server did not take it, in its words.
            RefitError: as refit.Version.push(). What else the client raises comes out as it is.
        """
        declared = _declared(self.source)
        pairs = _full(self.source)
        try:
            if self.is_sender:
                self._send(declared, pairs)
        finally:
            for _ in pairs:  # the other ranks wait in its collectives
                pass

    def _send(self, declared: List[Tuple[str, Any]], pairs: Iterator[Any]) -> None:
        number = self.next_version
        self.next_version += 1
        with self._publisher.version(
            number, dtype=self._dtype, declare=declared, rank=0, world=1, trainer_epoch=self._epoch
        ) as version:
            version.push(pairs)
        self._await_stages(number)
        with self._control.paused(self._info.pause):
            self._update(number)
            if self._info.reset_caches:
                self._control.reset_caches()

    def _await_stages(self, number: int) -> None:
        """Until no worker of the fleet is still pulling. One that stays behind tells in the update what it lacks."""
        if self._info.stage_timeout > 0 and self._publisher.connected_workers() > 0:
            try:
                self._publisher.wait_for_workers(
                    number, all=True, phase="staged", timeout=self._info.stage_timeout, trainer_epoch=self._epoch
                )
            except DeadlineExceeded as error:
                _log.warning("refit: version %d is installed, although not all have it staged: %s", number, error)

    def _update(self, number: int) -> None:
        self._start()
        self._has_failed = True
        try:
            self.client.update_weights({"version": number, "trainer_epoch": self._epoch})
        except Exception as error:
            # vLLM's HTTP client keeps the server's words to itself.
            words = getattr(getattr(error, "response", None), "text", "")
            if not words:
                raise
            raise FailedPrecondition(f"version {number}: a server refused it: {words}", version=number) from error
        self.client.finish_weight_update(weight_version=str(number))
        self._has_failed = False

    def _start(self) -> None:
        """After an update that failed, a server may hold that it still goes on."""
        try:
            self.client.start_weight_update()
        except Exception:
            if not self._has_failed:
                raise
            with suppress(Exception):  # it is this one's purpose to end what failed
                self.client.finish_weight_update()
            self.client.start_weight_update()

    def shutdown(self) -> None:
        if self.is_sender:
            self._publisher.close()
            self._hosting.close()


def _declared(source: Any) -> List[Tuple[str, Any]]:
    """(name, (dtype, shape)). The metadata is a method up to vLLM 0.28, an attribute later."""
    metadata = source.metadata() if callable(source.metadata) else source.metadata
    return [(meta.name, (meta.dtype, tuple(meta.shape))) for meta in metadata]


def _full(source: Any) -> Iterator[Any]:
    """A fresh pass over whole tensors. The source itself iterates up to vLLM 0.28."""
    passes: Iterable[Any] = source.iter_full() if hasattr(source, "iter_full") else source
    return iter(passes)
