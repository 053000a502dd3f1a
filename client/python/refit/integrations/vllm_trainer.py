"""vLLM's sending half of the backend ``refit``, which its factory imports: one engine in each trainer rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Iterable, Iterator, List, Optional, Tuple

from refit.errors import InvalidArgument
from refit.integrations.hosting import Hosting
from refit.integrations.runs import begin_run
from refit.publisher import Publisher

try:
    from vllm.distributed.weight_transfer.base import TrainerInitInfo, TrainerWeightTransferEngine
except ImportError as error:
    raise ImportError(
        f"refit's trainer engine needs vLLM >= 0.28, with TrainerWeightTransferEngine: {error}; refit.Publisher needs "
        "none"
    ) from error


@dataclass
class RefitTrainerInitInfo(TrainerInitInfo):
    """``rank`` is vLLM's: this trainer process's; rank 0 pushes, and the others only join in the source's collectives.

    Attributes:
        address: of a service; empty: rank 0 starts one.
        serve, advertise: options of that one, and this host's name for the workers; see Hosting.
        first_version: number of the first update, if the service has none that is as large: with one that has had others
            before, this run of the trainer goes on above them.
        model, adapter: as refit.Publisher's.
        dtype: what floating-point tensors are cast to; None: no cast.
        timeout: patience of the workers for each word of the service, seconds.
        channel: options of connections, on both sides: transport, ca, token_file, ...; see refit.Publisher.
    """

    backend: ClassVar[str] = "refit"

    address: str = ""
    serve: Dict[str, Any] = field(default_factory=dict)
    advertise: str = ""
    first_version: int = 1
    model: str = "default"
    adapter: str = "identity"
    dtype: Optional[str] = None
    timeout: float = 60.0
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
        self._publisher = Publisher(address, model=info.model, adapter=info.adapter, **info.channel)
        self._dtype = info.dtype
        self._epoch, self.next_version = begin_run(
            address, info.first_version, model=info.model, channel=info.channel
        )
        self.client.init_weight_transfer_engine(
            {"address": address, "model": info.model, "timeout": info.timeout, "channel": info.channel}
        )

    def send_weights(self) -> None:
        """One version, on every rank: pushed and committed by rank 0, then loaded by all workers.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition: naming the tensor in which the source's metadata and
                iteration differ. No worker hears of the version.
            RefitError: as refit.Version.push(). What the client raises comes out as it is.
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
        self.client.start_weight_update()
        self.client.update_weights({"version": number, "trainer_epoch": self._epoch})
        self.client.finish_weight_update(weight_version=str(number))

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
