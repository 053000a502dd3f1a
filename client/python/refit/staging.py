"""From a device's memory to the host's: through pinned memory, the next copy under way while the last is used."""

from __future__ import annotations

import sys
from typing import Any, Callable, Iterable, Iterator, Optional, Tuple

from refit import intake
from refit.errors import InvalidArgument
from refit.intake import Lease, is_torch

Pair = Tuple[str, Any]
# Begins the copy of a tensor; what it returns waits for it, and gives the host's tensor.
Begin = Callable[[Any], Callable[[], Any]]


def on_host(pairs: Iterable[Pair], begin: Optional[Begin] = None) -> Iterator[Tuple[str, Lease]]:
    """(name, host memory) of each tensor: its own if it is there already, and then the iterator of `pairs` is not resumed
    before the next one is asked for; else a copy, and then the next one's is begun before.

    That is safe for an iterator that uses its device memory again, as long as it does so in the stream that was current
    when it gave the tensor: the copy is in that stream already, before anything that the iterator does when resumed.

    Args:
        begin: how a tensor that is elsewhere is copied; default: pinned_copy() for CUDA, ``tensor.cpu()`` for others.
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
    """None: it is on the host."""
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
    """Begins a copy of a CUDA tensor to pinned memory, in the current stream of its device, which need not be the thread's.
    torch keeps pinned memory for reuse."""
    torch = sys.modules["torch"]
    host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    with torch.cuda.device(tensor.device):
        host.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        # Its memory may be another stream's: freed meanwhile, it is not given out again before the copy is done.
        tensor.record_stream(torch.cuda.current_stream())

    def wait() -> Any:
        done.synchronize()
        return host

    return wait
