"""From a version to a framework's batches of tensors. For the plugs of engines that load weights batch by batch."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator, List, Mapping, Optional

from refit import aio
from refit.errors import DeadlineExceeded
from refit.integrations.sending import Pair, buckets
from refit.subscriber import PulledVersion


class WeightReceiver:
    """Pulls versions, and gives each only once all of it is there and verified."""

    def __init__(
        self,
        *,
        bucket_size: int,
        model: str = "default",
        device: Any = "auto",
        timeout: float = 600.0,
        channel: Optional[Mapping[str, Any]] = None,
    ):
        """
        Args:
            bucket_size: bytes of a batch; a larger tensor comes alone.
            device: where the tensors are given: "auto" (this process's CUDA device, if it has one), or a torch device.
            timeout: patience for a version that is not pushed yet, and for each word of the service, seconds.
            model, channel: as Subscriber's; `channel` has the connection's options.
        """
        self._bucket_size = bucket_size
        self._device = device
        self._timeout = timeout
        self._options = dict(channel or {}, model=model)

    async def batches(
        self, address: str, number: int, trainer_epoch: Optional[int] = None
    ) -> AsyncIterator[List[Pair]]:
        """The tensors of version `number`, in manifest order, as lists of (name, torch tensor).

        Args:
            trainer_epoch: only of this run of the trainer: what a former one has left under that number is not taken.
        Raises:
            DeadlineExceeded: its push did not begin in time.
            Aborted, FailedPrecondition: its push failed.
            RefitError: as Subscriber.pull(). No batch was given then.
        """
        device = _device(self._device)
        version = await self._pull(address, number, trainer_epoch)
        for bucket in buckets(version, self._bucket_size, _nbytes):
            yield bucket if device is None else [(name, tensor.to(device)) for name, tensor in bucket]

    async def _pull(self, address: str, number: int, trainer_epoch: Optional[int]) -> PulledVersion:
        async with aio.Subscriber(address, **self._options) as subscriber:
            try:
                await asyncio.wait_for(_announced(subscriber, number, trainer_epoch), self._timeout)
            except asyncio.TimeoutError:
                raise DeadlineExceeded(
                    f"version {number}: its push did not begin within {self._timeout} s", version=number
                ) from None
            return await subscriber.pull(number, trainer_epoch=trainer_epoch, idle_timeout=self._timeout)


async def _announced(subscriber: aio.Subscriber, number: int, trainer_epoch: Optional[int]) -> None:
    """Until the service knows of this version, or of a later one."""
    events = subscriber.watch(after=number - 1, trainer_epoch=trainer_epoch)
    try:
        async for _ in events:
            return
    finally:
        await events.aclose()  # type: ignore[attr-defined]


def _device(device: Any) -> Any:
    """None: host memory."""
    import torch  # also tells refit to give torch's tensors

    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None
    return None if torch.device(device).type == "cpu" else device


def _nbytes(tensor: Any) -> int:
    return int(tensor.numel()) * int(tensor.element_size())
