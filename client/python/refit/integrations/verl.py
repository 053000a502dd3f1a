"""verl: the checkpoint engine ``refit``, with ``custom_backend_module: refit.integrations.verl``.

For verl >= 0.8 (checked with 0.8.0 and 0.9.1). Importing this module registers the engine. See docs/verl.md.
"""

from __future__ import annotations

from typing import Any, AsyncIterator, Dict, Iterable, List, Optional, Tuple

from refit.errors import FailedPrecondition
from refit.integrations.shared.exchange import Exchange
from refit.integrations.shared.sending import Pair

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

    def __init__(self, bucket_size: int, is_master: bool = False, **options: Any):
        """
        Args:
            bucket_size: bytes on the way at a time; verl computes it from update_weights_bucket_megabytes.
            is_master: verl's: actor rank 0.
            options: as shared.exchange.Exchange has them; without an address, the master starts a service.
        """
        self._is_master = is_master
        self._exchange = Exchange(bucket_size, **options)

    def prepare(self) -> Dict[str, Any]:
        """The master's has the service's address, the run of the trainer, and the version to come. It starts the
        service at its first call.

        Raises:
            Unavailable: naming the address, if there is no service where one was given.
        """
        exchange = self._exchange
        exchange.let_go()
        if not self._is_master:
            return {}
        address = exchange.given or exchange.hosting.start()
        if exchange.trainer_epoch == 0:
            exchange.begin_run(address)
        return {"address": address, "version": exchange.next_version, "trainer_epoch": exchange.trainer_epoch}

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
        self._exchange.join(address, trainer_epoch, version, rank=rank, world=world_size)

    async def send_weights(self, weights: Iterable[Pair], global_steps: Optional[int] = None) -> None:
        """Pushes one version; see WeightSender.send()."""
        await self._exchange.send(weights, global_steps or 0)

    async def receive_weights(  # type: ignore[override]
        self, global_steps: Optional[int] = None
    ) -> AsyncIterator[Pair]:
        """Pulls that version, or the one after it if its push never began; see WeightReceiver."""
        async for batch in self._exchange.receive(global_steps or 0):
            for pair in batch:
                yield pair

    def finalize(self) -> None:
        """The service goes on, for the next step and for workers that come late."""
        self._exchange.leave()


def _arguments(world_size: int, master: Dict[str, Any]) -> Dict[str, List[Any]]:
    return {
        "rank": list(range(world_size)),
        "world_size": [world_size] * world_size,
        "address": [master["address"]] * world_size,
        "version": [master["version"]] * world_size,
        "trainer_epoch": [master["trainer_epoch"]] * world_size,
    }
