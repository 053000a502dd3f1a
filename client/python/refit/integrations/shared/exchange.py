"""Versions from a trainer's processes to an engine's. For the plugs of frameworks that make an object of one class in
each process, on both sides, and tell them of each other before they send and receive."""

from __future__ import annotations

from typing import Any, AsyncIterator, Dict, Iterable, List, Mapping, Optional, Tuple

from refit.errors import FailedPrecondition, InvalidArgument
from refit.integrations.shared.hosting import Hosting
from refit.integrations.shared.receiving import WeightReceiver
from refit.integrations.shared.runs import begin_run
from refit.integrations.shared.sending import Pair, WeightSender
from refit.version_number import version_number


class Exchange:
    """One process's part. Not thread-safe.

    Attributes:
        given: the address of a service that runs already; empty: `hosting` is to start one.
        hosting: the service of this process, should it be the one that starts it.
        trainer_epoch: the run that all versions are of; 0: not decided yet.
        next_version: the smallest number that the next version may have.
    """

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
        adapter_options: Optional[Mapping[str, Any]] = None,
        dtype: Any = None,
        sharded: Optional[bool] = None,
        device: Any = "auto",
        timeout: float = 600.0,
        allow_partial: bool = False,
        keep_base: bool = False,
        channel: Optional[Mapping[str, Any]] = None,
    ):
        """
        Args:
            bucket_size: bytes on the way at a time, and of a batch that is received.
            address: of a service; empty: a process of the trainer's starts one.
            serve, advertise: options of that one, and this host's name for others; see Hosting.
            first_version: smallest number of a version.
            model, adapter, adapter_options, dtype, sharded: see WeightSender. Frameworks mostly yield Hugging Face
                tensors, hence "identity"; "gemma4_moe" and others convert native ones, "auto" finds out.
            device, timeout, keep_base: see WeightReceiver.
            allow_partial: on both sides; see WeightSender and WeightReceiver.
            channel: options of connections: transport, ca, token_file, ...; see Publisher.
        Raises:
            InvalidArgument: for a bucket without a byte, or a first_version that is no number.
        """
        if bucket_size < 1:
            raise InvalidArgument(f"bucket_size {bucket_size}: expected at least 1 byte")
        both: Dict[str, Any] = dict(bucket_size=bucket_size, model=model, allow_partial=allow_partial, channel=channel)
        self.given = address
        self.hosting = Hosting(serve, advertise)
        self.trainer_epoch = 0
        self.next_version = version_number(first_version)
        self._run_options: Dict[str, Any] = dict(model=model, channel=channel)
        self._sender = WeightSender(
            adapter=adapter, adapter_options=adapter_options, dtype=dtype, sharded=sharded, **both
        )
        self._receiver = WeightReceiver(device=device, timeout=timeout, keep_base=keep_base, **both)
        self._address = ""
        self._rank, self._world = 0, 1

    def begin_run(self, address: str) -> None:
        """Decides on the run, above all that the service has had; see runs.begin_run()."""
        self.trainer_epoch, self.next_version = begin_run(address, self.next_version, **self._run_options)

    def join(self, address: str, trainer_epoch: int, next_version: int, *, rank: int = 0, world: int = 1) -> None:
        """Before send() and receive(): what all processes agree on, and this one's place among those that send."""
        self.let_go()
        self._address = address
        self.trainer_epoch, self.next_version = trainer_epoch, next_version
        self._rank, self._world = rank, world

    def leave(self) -> None:
        """Until the next join(). A service that was started goes on."""
        self.let_go()
        self._address = ""

    def let_go(self) -> None:
        """Ends a receive() that still waits for its version."""
        self._receiver.let_go()

    async def send(self, weights: Iterable[Pair], smallest: int = 0) -> None:
        """Pushes the next version, with the number `smallest` or a larger one; see WeightSender.send()."""
        address, number = self._next(smallest)
        self.next_version = number + 1
        place = dict(rank=self._rank, world=self._world)
        await self._sender.send(address, number, weights, trainer_epoch=self.trainer_epoch, **place)

    async def receive(self, smallest: int = 0) -> AsyncIterator[List[Pair]]:
        """Pulls that version, or the one after it if its push never began; see WeightReceiver."""
        address, first = self._next(smallest)
        number = await self._receiver.announced(address, first, self.trainer_epoch)
        self.next_version = number + 1
        async for batch in self._receiver.batches(address, number, self.trainer_epoch):
            yield batch

    def _next(self, smallest: int) -> Tuple[str, int]:
        if not self._address:
            raise FailedPrecondition("there is no process group: call prepare() and init_*process_group() first")
        return self._address, max(self.next_version, smallest)
