"""verl: the checkpoint engine ``refit``, with ``custom_backend_module: refit.integrations.verl``.

For verl >= 0.8 (checked with 0.8.0 and 0.9.1). Importing this module registers the engine. See docs/verl.md.
"""

from __future__ import annotations

from typing import Any, AsyncIterator, Dict, Iterable, List, Mapping, Optional, Tuple

from refit.errors import FailedPrecondition, InvalidArgument
from refit.integrations.hosting import Hosting
from refit.integrations.receiving import WeightReceiver
from refit.integrations.runs import begin_run
from refit.integrations.sending import Pair, WeightSender
from refit.version_number import version_number

try:
    from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry
except ImportError as error:
    raise ImportError(f"refit.integrations.verl needs verl >= 0.8, with verl.checkpoint_engine: {error}") from error


@CheckpointEngineRegistry.register("refit")
class RefitCheckpointEngine(CheckpointEngine):
    """One in each actor and one in each rollout worker. Not thread-safe.

    Every update is one version. Its number is that of the global step if that is larger than all that the service has
    had, else the next, as after a resume from an older checkpoint. All mean versions of one `trainer_epoch`, which the
    master's first prepare() decides: nothing of a former run is taken.
    """

    def __init__(
        self,
        bucket_size: int,
        is_master: bool = False,
        *,
        address: str = "",
        serve: Optional[Mapping[str, Any]] = None,
        advertise: str = "",
        first_version: int = 1,
        model: str = "default",
        adapter: str = "identity",
        dtype: Any = None,
        sharded: Optional[bool] = None,
        device: Any = "auto",
        timeout: float = 600.0,
        allow_partial: bool = False,
        channel: Optional[Mapping[str, Any]] = None,
    ):
        """
        Args:
            bucket_size: bytes on the way at a time; verl computes it from update_weights_bucket_megabytes.
            is_master: verl's: actor rank 0.
            address: of a service; empty: the master starts one.
            serve, advertise: options of that one, and this host's name for others; see Hosting.
            first_version: smallest number of a version.
            model, adapter, dtype, sharded: see WeightSender. verl's engines yield Hugging Face tensors, hence
                "identity".
            device, timeout: see WeightReceiver.
            allow_partial: on both sides; see WeightSender and WeightReceiver.
            channel: options of connections: transport, ca, token_file, ...; see Publisher.
        """
        if bucket_size < 1:
            raise InvalidArgument(f"bucket_size {bucket_size}: expected at least 1 byte")
        self._is_master = is_master
        self._given = address
        self._hosting = Hosting(serve, advertise)
        self._sender = WeightSender(
            bucket_size=bucket_size,
            model=model,
            adapter=adapter,
            dtype=dtype,
            sharded=sharded,
            channel=channel,
            allow_partial=allow_partial,
        )
        self._receiver = WeightReceiver(
            bucket_size=bucket_size,
            model=model,
            device=device,
            timeout=timeout,
            allow_partial=allow_partial,
            channel=channel,
        )
        self._next_version = version_number(first_version)
        self._run_options: Dict[str, Any] = dict(model=model, channel=channel)
        self._epoch = 0  # 0: not decided yet
        self._address = ""
        self._rank, self._world = 0, 1

    def prepare(self) -> Dict[str, Any]:
        """The master's has the service's address, the run of the trainer, and the version to come; it starts the service
        at its first call.

        Raises:
            Unavailable: naming the address, if there is no service where one was given.
        """
        self._receiver.let_go()
        if not self._is_master:
            return {}
        address = self._given or self._hosting.start()
        if self._epoch == 0:
            self._epoch, self._next_version = begin_run(address, self._next_version, **self._run_options)
        return {"address": address, "version": self._next_version, "trainer_epoch": self._epoch}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: List[Dict[str, Any]]
    ) -> Tuple[Dict[str, List[Any]], Dict[str, List[Any]]]:
        """init_process_group()'s arguments for each actor and each rollout worker; metadata come in this order."""
        master = metadata[0]
        if "address" not in master:
            raise FailedPrecondition("actor rank 0 is not the master of the checkpoint engine: it has no service")
        return _arguments(actor_wg_world_size, master), _arguments(rollout_world_size, master)

    def init_process_group(  # type: ignore[override]
        self, *, rank: int, world_size: int, address: str, version: int, trainer_epoch: int
    ) -> None:
        """
        Args:
            rank, world_size: of this worker among the actors, or among the rollout workers.
            address, version, trainer_epoch: the master's.
        """
        self._receiver.let_go()
        self._rank, self._world = rank, world_size
        self._address = address
        self._next_version = version
        self._epoch = trainer_epoch

    async def send_weights(self, weights: Iterable[Pair], global_steps: Optional[int] = None) -> None:
        """Pushes one version; see WeightSender.send()."""
        address, number = self._begin(global_steps)
        await self._sender.send(address, number, weights, rank=self._rank, world=self._world, trainer_epoch=self._epoch)

    async def receive_weights(  # type: ignore[override]
        self, global_steps: Optional[int] = None
    ) -> AsyncIterator[Pair]:
        """Pulls that version, or the one after it if its push never began; see WeightReceiver."""
        address, first = self._begin(global_steps)
        number = await self._receiver.announced(address, first, self._epoch)
        async for batch in self._receiver.batches(address, number, self._epoch):
            for pair in batch:
                yield pair

    def finalize(self) -> None:
        """The service goes on, for the next step and for workers that come late."""
        self._receiver.let_go()
        self._address = ""

    def _begin(self, global_steps: Optional[int]) -> Tuple[str, int]:
        if not self._address:
            raise FailedPrecondition("there is no process group: call prepare() and init_process_group() first")
        number = max(self._next_version, global_steps or 0)
        self._next_version = number + 1
        return self._address, number


def _arguments(world_size: int, master: Dict[str, Any]) -> Dict[str, List[Any]]:
    return {
        "rank": list(range(world_size)),
        "world_size": [world_size] * world_size,
        "address": [master["address"]] * world_size,
        "version": [master["version"]] * world_size,
        "trainer_epoch": [master["trainer_epoch"]] * world_size,
    }
