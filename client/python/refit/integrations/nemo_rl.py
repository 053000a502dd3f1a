"""NeMo-RL: a checkpoint engine, for ``refit_transport: "refit.integrations.nemo_rl:RefitCheckpointEngine"``.

For NeMo-RL with ``nemo_rl/utils/checkpoint_engines/base.py`` (2026), which makes the class by its path; nothing of
NeMo-RL is imported. See docs/nemo_rl.md.
"""

from __future__ import annotations

import time
from typing import Any, AsyncIterator, Dict, Iterable, List

from refit.integrations.shared.exchange import Exchange
from refit.integrations.shared.sending import Pair


class RefitCheckpointEngine:
    """One in each policy worker and one in each rollout worker. Not thread-safe.

    Every refit is one version. Policy workers count them, from the `next_version` that prepare() exchanges; rollout
    workers take what the service announces after the last that they took. All mean those of one `trainer_epoch`, which
    prepare() of policy rank 0 decides once: with a service that has had others before, this run goes on above them, and
    takes nothing of theirs.
    """

    # The rollout worker need not empty its CUDA cache after a load: nothing of the transfer stays there.
    cleanup_after_load = False

    def __init__(self, bucket_size: int, *, release_after_refit: bool = False, **options: Any):
        """
        Args:
            bucket_size: bytes of a batch, on both sides; NeMo-RL computes it.
            release_after_refit: NeMo-RL's own, for its synchronizer.
            options: as shared.exchange.Exchange has them; without an address, policy rank 0 starts a service.
        """
        self._exchange = Exchange(bucket_size, **options)

    def prepare(self) -> Dict[str, Any]:
        """What the others must know: where a service of this process would be, which run of the trainer it would begin,
        and how far it has counted.

        Raises:
            Unavailable: naming the address, if there is no service where one was given.
        """
        exchange = self._exchange
        if exchange.trainer_epoch == 0:
            self._begin_run()
        return {
            "address": exchange.given or exchange.hosting.reserve(),
            "next_version": exchange.next_version,
            "trainer_epoch": exchange.trainer_epoch,
        }

    def get_target_weight_layout(self) -> None:
        """Whole tensors: the service gives every rollout worker all of them."""

    def init_policy_process_group(
        self, *, worker_rank: int, train_world_size: int, rollout_world_size: int, metadata: List[Any]
    ) -> None:
        """Rank 0 starts the service, unless one was given."""
        if worker_rank == 0 and not self._exchange.given:
            self._exchange.hosting.start()
        self._join(metadata, rank=worker_rank, world=train_world_size)

    def init_rollout_process_group(
        self, *, rollout_rank: int, train_world_size: int, rollout_world_size: int, metadata: List[Any]
    ) -> None:
        self._join(metadata)

    async def send_weights(self, weights: Iterable[Pair]) -> None:
        """Pushes one version; see WeightSender.send()."""
        await self._exchange.send(weights)

    async def receive_weight_batches(self) -> AsyncIterator[List[Pair]]:
        """Pulls that version, or the one after it if its push never began; see WeightReceiver."""
        async for batch in self._exchange.receive():
            yield batch

    def finalize(self) -> None:
        """Ends the service that this process started. prepare() and the rest may be called anew."""
        self._exchange.leave()
        self._exchange.hosting.close()

    def _join(self, metadata: List[Any], **place: int) -> None:
        """All take the service and the run of policy rank 0, whose metadata comes first, and the highest count."""
        policy = metadata[0]
        highest = max(one["next_version"] for one in metadata)
        self._exchange.join(policy["address"], policy["trainer_epoch"], highest, **place)

    def _begin_run(self) -> None:
        """A service of this process's own runs later; what it may have kept on disk is older."""
        exchange = self._exchange
        if exchange.given:
            exchange.begin_run(exchange.given)
        else:
            exchange.trainer_epoch = int(time.time() * 1000) if exchange.hosting.keeps_versions else 1
