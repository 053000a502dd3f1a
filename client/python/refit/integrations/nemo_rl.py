"""NeMo-RL: a checkpoint engine, for ``refit_transport: "refit.integrations.nemo_rl:RefitCheckpointEngine"``.

For NeMo-RL with ``nemo_rl/utils/checkpoint_engines/base.py`` (2026), which makes the class by its path; nothing of
NeMo-RL is imported. See docs/nemo_rl.md.
"""

from __future__ import annotations

import time
from typing import Any, AsyncIterator, Dict, Iterable, List, Mapping, Optional, Tuple

from refit.errors import FailedPrecondition, InvalidArgument
from refit.integrations.hosting import Hosting
from refit.integrations.receiving import WeightReceiver
from refit.integrations.runs import begin_run
from refit.integrations.sending import Pair, WeightSender
from refit.version_number import version_number


class RefitCheckpointEngine:
    """One in each policy worker and one in each rollout worker. Not thread-safe.

    Every refit is one version. Policy workers count them, from the `next_version` that prepare() exchanges; rollout
    workers take what the service announces after the last that they took. All mean those of one `trainer_epoch`, which
    prepare() of policy rank 0 decides once: with a service that has had others before, this run goes on above them, and
    takes nothing of theirs.
    """

    # The rollout worker need not empty its CUDA cache after a load: nothing of the transfer stays there.
    cleanup_after_load = False

    def __init__(
        self,
        bucket_size: int,
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
        release_after_refit: bool = False,
    ):
        """
        Args:
            bucket_size: bytes of a batch, on both sides; NeMo-RL computes it.
            address: of a service; empty: policy rank 0 starts one.
            serve, advertise: options of that one, and this host's name for others; see Hosting.
            first_version: number of the first refit, if the service has none that is as large.
            model, adapter, dtype, sharded: see WeightSender. NeMo-RL's policy workers yield Hugging Face tensors, hence
                "identity"; "gemma4_moe" converts native ones.
            device, timeout: see WeightReceiver.
            allow_partial: on both sides; see WeightSender and WeightReceiver.
            channel: options of connections: transport, ca, token_file, ...; see Publisher.
            release_after_refit: NeMo-RL's own, for its synchronizer.
        """
        if bucket_size < 1:
            raise InvalidArgument(f"bucket_size {bucket_size}: expected at least 1 byte")
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
        self._keeps_versions = "spool" in (serve or {})
        self._epoch = 0  # 0: not decided yet
        self._address = ""
        self._rank, self._world = 0, 1

    def prepare(self) -> Dict[str, Any]:
        """What the others must know: where a service of this process would be, which run of the trainer it would begin, and
        how far it has counted.

        Raises:
            Unavailable: naming the address, if there is no service where one was given.
        """
        if self._epoch == 0:
            self._epoch, self._next_version = self._begin_run()
        return {
            "address": self._given or self._hosting.reserve(),
            "next_version": self._next_version,
            "trainer_epoch": self._epoch,
        }

    def get_target_weight_layout(self) -> None:
        """Whole tensors: the service gives every rollout worker all of them."""

    def init_policy_process_group(
        self, *, worker_rank: int, train_world_size: int, rollout_world_size: int, metadata: List[Any]
    ) -> None:
        """Rank 0 starts the service, unless one was given."""
        self._rank, self._world = worker_rank, train_world_size
        self._join(metadata)
        if worker_rank == 0 and not self._given:
            self._address = self._hosting.start()

    def init_rollout_process_group(
        self, *, rollout_rank: int, train_world_size: int, rollout_world_size: int, metadata: List[Any]
    ) -> None:
        self._join(metadata)

    async def send_weights(self, weights: Iterable[Pair]) -> None:
        """Pushes one version; see WeightSender.send()."""
        address, number = self._connected(), self._next_version
        self._next_version += 1
        await self._sender.send(address, number, weights, rank=self._rank, world=self._world, trainer_epoch=self._epoch)

    async def receive_weight_batches(self) -> AsyncIterator[List[Pair]]:
        """Pulls that version, or the one after it if its push never began; see WeightReceiver."""
        address = self._connected()
        number = await self._receiver.announced(address, self._next_version, self._epoch)
        self._next_version = number + 1
        async for batch in self._receiver.batches(address, number, self._epoch):
            yield batch

    def finalize(self) -> None:
        """Ends the service that this process started. prepare() and the rest may be called anew."""
        self._receiver.let_go()
        self._hosting.close()
        self._address = ""

    def _join(self, metadata: List[Any]) -> None:
        """All take the service and the run of policy rank 0, whose metadata comes first, and the highest count."""
        self._receiver.let_go()
        self._address = metadata[0]["address"]
        self._epoch = metadata[0]["trainer_epoch"]
        self._next_version = max(one["next_version"] for one in metadata)

    def _begin_run(self) -> Tuple[int, int]:
        """(trainer_epoch, version). A service of this process's own runs later; what it may have kept on disk is older."""
        if self._given:
            return begin_run(self._given, self._next_version, **self._run_options)
        return int(time.time() * 1000) if self._keeps_versions else 1, self._next_version

    def _connected(self) -> str:
        if not self._address:
            raise FailedPrecondition("there is no process group: call prepare() and init_*_process_group() first")
        return self._address
