"""Copies tensors from a device to host memory through pinned memory. The next copy runs while the last one is used."""

from __future__ import annotations

import sys
from typing import Any, Callable, Iterable, Iterator, Optional, Tuple

from refit import intake
from refit.errors import InvalidArgument
from refit.intake import Lease, is_torch

Pair = Tuple[str, Any]
# Begins to copy a tensor. Returns a function that waits for the copy and returns the tensor in host memory.
Begin = Callable[[Any], Callable[[], Any]]


def on_host(pairs: Iterable[Pair], begin: Optional[Begin] = None) -> Iterator[Tuple[str, Lease]]:
    """Yields (name, host memory) for each tensor. A tensor in host memory gives its own memory, and the iterator of
    `pairs` is resumed only for the next request. Another tensor gives a copy; the next tensor's copy begins before that
    is yielded.

    The iterator may reuse its device memory if it does so in the stream that was current when it gave the tensor: the
    copy is in that stream before anything that the resumed iterator adds.

    Args:
        begin: copies a tensor from a device. Default: pinned_copy() for CUDA, ``tensor.cpu()`` for others.
    Raises:
        InvalidArgument: naming a tensor that cannot be copied: on CUDA where there is none, or without any data.
    """
    pending: Optional[Tuple[str, Callable[[], Any]]] = None
    for name, tensor in pairs:
        begun = _begin(name, tensor, begin)
        if pending is not None:
            yield _copied(*pending)
        pending = None if begun is None else (name, begun)
        if begun is None:
            yield name, intake.lend(name, tensor)
    if pending is not None:
        yield _copied(*pending)


def _copied(name: str, wait: Callable[[], Any]) -> Tuple[str, Lease]:
    return name, intake.lend(name, wait())._replace(is_own=True, seen=None)


def _begin(name: str, tensor: Any, begin: Optional[Begin]) -> Optional[Callable[[], Any]]:
    """None if the tensor is in host memory."""
    device = intake.device_of(tensor) if is_torch(tensor) else None
    if device is None or device.type == "cpu":
        return None
    if begin is not None:
        return begin(tensor.detach())
    intake.check(name, tensor)
    if device.type != "cuda":
        copied = tensor.detach().cpu()
        return lambda: copied
    if not sys.modules["torch"].cuda.is_available():
        raise InvalidArgument(f"tensor {name}: it is on {device}, and this process has no CUDA", tensor=name)
    return pinned_copy(tensor.detach())


def pinned_copy(tensor: Any) -> Callable[[], Any]:
    """Begins a copy of a CUDA tensor to pinned memory, in the current stream of its device, which need not be the
    thread's current device. torch keeps pinned memory for reuse."""
    torch = sys.modules["torch"]
    host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    with torch.cuda.device(tensor.device):
        host.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        # The memory may belong to another stream. This keeps it from being reused before the copy is done, even if it
        # is freed.
        tensor.record_stream(torch.cuda.current_stream())

    def wait() -> Any:
        done.synchronize()
        return host

    return wait
