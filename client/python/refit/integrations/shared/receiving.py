"""From a version to a framework's batches of tensors. For the plugs of engines that load weights batch by batch."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator, List, Mapping, Optional, Tuple

from refit import aio
from refit.errors import Aborted, DeadlineExceeded
from refit.integrations.shared.base import base_after
from refit.integrations.shared.contents import Contents
from refit.integrations.shared.sending import Pair, buckets
from refit.pulled_version import PulledVersion


class WeightReceiver:
    """Pulls versions, one at a time. Gives each only once all of it is there, verified, and like those before it."""

    def __init__(
        self,
        *,
        bucket_size: int,
        model: str = "default",
        device: Any = "auto",
        timeout: float = 600.0,
        allow_partial: bool = False,
        keep_base: bool = False,
        channel: Optional[Mapping[str, Any]] = None,
    ):
        """
        Args:
            bucket_size: bytes of a batch; a larger tensor comes alone.
            device: where the tensors are given: "auto" (this process's CUDA device, if it has one), or a torch device.
            timeout: patience for a version that is not pushed yet, and for each word of the service, seconds.
            allow_partial: a version may lack tensors that the first one had, or bring new ones.
            keep_base: the last version is kept in this host's memory, so that of the next one only the changes come.
            model, channel: as Subscriber's; `channel` has the connection's options.
        """
        self._bucket_size = bucket_size
        self._device = device
        self._timeout = timeout
        self._options = dict(channel or {}, model=model)
        self._contents = Contents(allow_partial=allow_partial)
        self._keep_base = keep_base
        self._base: Optional[PulledVersion] = None
        self._waiting: Optional[Tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]] = None

    async def announced(self, address: str, first: int, trainer_epoch: Optional[int] = None) -> int:
        """Waits until the push of a version has begun, or was given up. Its number: `first`, or that of the version
        that came in its place.

        Args:
            trainer_epoch: only of this run of the trainer: what a former one has left under that number is not taken.
        Raises:
            DeadlineExceeded: none began in time.
            Aborted: let_go() was called, or this, meanwhile.
            RefitError: as Subscriber.watch().
        """
        self.let_go()
        loop = asyncio.get_running_loop()
        let_go: "asyncio.Future[None]" = loop.create_future()
        self._waiting = (loop, let_go)
        looking = asyncio.ensure_future(self._first_of(address, first, trainer_epoch))
        try:
            await asyncio.wait([looking, let_go], timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_late = not looking.done()
            looking.cancel()
        if not is_late:
            return looking.result()
        if let_go.done():
            raise Aborted(f"version {first}: its push had not begun when the engine was asked anew", version=first)
        raise DeadlineExceeded(f"version {first}: its push did not begin within {self._timeout} s", version=first)

    def let_go(self) -> None:
        """Ends announced(). From any thread."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        loop, let_go = waiting
        try:
            loop.call_soon_threadsafe(lambda: let_go.done() or let_go.set_result(None))
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    async def batches(
        self, address: str, number: int, trainer_epoch: Optional[int] = None
    ) -> AsyncIterator[List[Pair]]:
        """The tensors of version `number`, in manifest order, as lists of (name, torch tensor).

        Raises:
            InvalidArgument: naming the tensor: it is missing, new, or of another dtype or shape than in the first
                version that was given to the end.
            Aborted, FailedPrecondition: its push failed.
            RefitError: as Subscriber.pull(). No batch was given in any of these cases.
        """
        device = _device(self._device)
        async with aio.Subscriber(address, **self._options) as subscriber:
            version = await subscriber.pull(
                number, trainer_epoch=trainer_epoch, base=self._base, idle_timeout=self._timeout
            )
        self._base = base_after(version, keep=self._keep_base)
        self._contents.check(version)
        for bucket in buckets(version, self._bucket_size, _nbytes):
            yield bucket if device is None else [(name, tensor.to(device)) for name, tensor in bucket]
        self._contents.accept(version)

    async def _first_of(self, address: str, first: int, trainer_epoch: Optional[int]) -> int:
        """Waits until the service knows of this version, or of a later one of the same run."""
        async with aio.Subscriber(address, **self._options) as subscriber:
            events = subscriber.watch(after=first - 1, trainer_epoch=trainer_epoch)
            try:
                async for info in events:
                    return info.version if info.trainer_epoch == trainer_epoch else first
            finally:
                await events.aclose()  # type: ignore[attr-defined]
        return first


def _device(device: Any) -> Any:
    """None: host memory."""
    import torch  # also tells refit to give torch's tensors

    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None
    return None if torch.device(device).type == "cpu" else device


def _nbytes(tensor: Any) -> int:
    return int(tensor.numel()) * int(tensor.element_size())
