"""From a device's memory to the host's: through pinned memory, the next copy under way while the last is used."""

from __future__ import annotations

import sys
from typing import Any, Callable, Iterable, Iterator, Optional, Tuple

from refit.errors import InvalidArgument
from refit.tensors import is_torch

Pair = Tuple[str, Any]
# Begins the copy of a tensor; what it returns waits for it, and gives the host's tensor.
Begin = Callable[[Any], Callable[[], Any]]


def on_host(pairs: Iterable[Pair], begin: Optional[Begin] = None) -> Iterator[Pair]:
    """(name, tensor) with each tensor in host memory: as it is if it is there already.

    Args:
        begin: how a tensor that is elsewhere is copied; default: pinned_copy() for CUDA, ``tensor.cpu()`` for others.
    Raises:
        InvalidArgument: naming a tensor that cannot be copied: on CUDA where there is none, or without any data.
    """
    pending: Optional[Tuple[str, Callable[[], Any]]] = None
    for name, tensor in pairs:
        begun = (name, _begin(name, tensor, begin))
        if pending is not None:
            yield pending[0], pending[1]()
        pending = begun
    if pending is not None:
        yield pending[0], pending[1]()


def _begin(name: str, tensor: Any, begin: Optional[Begin]) -> Callable[[], Any]:
    if not is_torch(tensor) or tensor.device.type == "cpu":
        return lambda: tensor
    if begin is not None:
        return begin(tensor.detach())
    device = tensor.device
    if device.type == "meta":
        raise InvalidArgument(f"tensor {name}: it is on {device} and has no data", tensor=name)
    if device.type != "cuda":
        return lambda: tensor.detach().cpu()
    if not sys.modules["torch"].cuda.is_available():
        raise InvalidArgument(f"tensor {name}: it is on {device}, and this process has no CUDA", tensor=name)
    return pinned_copy(tensor.detach())


def pinned_copy(tensor: Any) -> Callable[[], Any]:
    """Begins a copy of a CUDA tensor to pinned memory, in the current stream of its device, which need not be the thread's.
    torch keeps pinned memory for reuse."""
    torch = sys.modules["torch"]
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    with torch.cuda.device(tensor.device):
        host.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

    def wait() -> Any:
        done.synchronize()
        return host

    return wait
