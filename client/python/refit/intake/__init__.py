"""Reads tensors of any library. Every tensor is checked before its bytes are read.

Takes torch tensors (also subclasses and DTensors), NumPy arrays, and objects with ``__array_interface__``, DLPack or
the buffer protocol. Neither torch nor NumPy is needed: their tensors are recognised by their methods. A tensor that
cannot be read raises InvalidArgument with its name, its type, the memory that it claims and the memory that it has. The
checks come first, so that reading does not end the process by a signal.
"""

from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, NamedTuple, Optional, Tuple

from refit import _refit
from refit.errors import InvalidArgument, RefitError, ResourceExhausted
from refit.intake import arrays, buffers, dlpack, torch

is_torch = torch.is_torch
is_dtensor = torch.is_dtensor
device_of = torch.device_of
stamp = torch.stamp
span = torch.span


class Lease(NamedTuple):
    """A tensor's memory on the host, row-major and without gaps.

    Attributes:
        is_own: the memory is a copy made here, which nothing else writes.
        seen: the caller's torch tensor and its stamp, if the memory belongs to one.
    """

    dtype: str
    shape: Tuple[int, ...]
    memory: "_refit.Lent"
    is_own: bool
    seen: Optional[Tuple[Any, torch.Stamp]] = None

    def is_unchanged(self) -> bool:
        """Whether torch has not written, freed or moved the tensor since. For other libraries' tensors it is always
        true."""
        return self.seen is None or torch.stamp(self.seen[0]) == self.seen[1]

    def kept(self, name: str) -> "Lease":
        """The same values in a copy of our own. InvalidArgument, naming the tensor, if they cannot be read."""
        if self.is_own:
            return self
        with _Named(name, self):
            return self._replace(memory=self.memory.copy(), is_own=True, seen=None)

    def check(self, name: str) -> None:
        """InvalidArgument, naming the tensor, if its memory cannot be read."""
        with _Named(name, self):
            self.memory.check()

    def digest(self, name: str) -> int:
        """Digest of the current values. InvalidArgument, naming the tensor, if they cannot be read."""
        with _Named(name, self):
            return self.memory.digest()


def describe(name: str, tensor: Any) -> Tuple[str, Tuple[int, ...]]:
    """(dtype, shape) of a tensor on any device, also on meta, without access to its memory. For a DTensor, those of the
    whole.

    Raises:
        InvalidArgument: if it cannot be read as a tensor.
    """
    if isinstance(tensor, Lease):
        return tensor.dtype, tensor.shape
    if not is_torch(tensor) and not is_dtensor(tensor):
        lease = lend(name, tensor)
        return lease.dtype, lease.shape
    with _Named(name, tensor):
        return torch.describe(tensor)


def local(name: str, tensor: Any) -> Any:
    """The tensor itself; for a DTensor, the part that this rank holds; for a running collective, its result, after
    waiting."""
    if not is_torch(tensor) and not is_dtensor(tensor):
        return tensor
    with _Named(name, tensor):
        return torch.local(tensor)


def check(name: str, tensor: Any) -> None:
    """Checks that a torch tensor on any device has the memory that it claims. InvalidArgument if not."""
    with _Named(name, tensor):
        torch.check(tensor)


def lend(name: str, tensor: Any, writable: bool = False) -> Lease:
    """The memory of a tensor on the host. A copy if it is not row-major or has gaps (never if `writable`).

    Whether the memory's pages can be accessed is checked only when they are; see _refit.Lent.check().

    Raises:
        InvalidArgument: for a tensor on another device (see refit.staging), or one that cannot be read (or written).
    """
    if isinstance(tensor, Lease):
        return tensor
    with _Named(name, tensor):
        tensor = torch.local(tensor) if is_torch(tensor) else tensor
        dtype, shape, memory, is_copy = _way_in(tensor)(tensor, writable)
        seen = (tensor, torch.stamp(tensor)) if is_torch(tensor) and not is_copy else None
        return Lease(dtype, tuple(shape), memory, is_copy, seen)


def targets_of(out: Mapping[str, Any]) -> "_refit.Targets":
    """Memory to receive into, by tensor name. It is checked when a version arrives."""
    targets = _refit.Targets()
    for name, tensor in out.items():
        lease = lend(name, tensor, writable=True)
        with _Named(name, tensor):
            lease.memory.check(writable=True)
        targets.add(_refit.Part(name, lease.dtype, lease.shape), lease.memory)
    return targets


def items_of(tensors: Any) -> Iterator[Tuple[str, Any]]:
    """(name, tensor) of a mapping, or of an iterable of pairs.

    Raises:
        InvalidArgument: if it is neither, or a name is not a string.
    """
    for item in tensors.items() if hasattr(tensors, "items") else _iterated(tensors):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise InvalidArgument(f"tensors come as a mapping or as pairs (name, tensor); got a {type(item).__name__}")
        if not isinstance(item[0], str):
            raise InvalidArgument(f"a tensor's name is text; got {item[0]!r} (a {type(item[0]).__name__})")
        yield item[0], item[1]


def _iterated(tensors: Any) -> Iterator[Any]:
    try:
        return iter(tensors)
    except TypeError:
        raise InvalidArgument(
            f"tensors come as a mapping or as pairs (name, tensor); got a {type(tensors).__name__}"
        ) from None


def _way_in(tensor: Any) -> Any:
    if is_torch(tensor):
        return torch.lend
    if hasattr(tensor, "__array_interface__"):
        return arrays.lend
    if hasattr(tensor, "__dlpack__"):
        return dlpack.lend
    if buffers.is_buffer(tensor):
        return buffers.lend
    raise TypeError("it is no tensor")


class _Named:
    """Turns errors about a tensor into ones that name it. A tensor of an unknown kind may raise anything."""

    def __init__(self, name: str, tensor: Any):
        self._name = name
        self._tensor = tensor

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: Optional[BaseException], __: Any) -> None:
        if not isinstance(error, Exception):
            return
        reason = error.message if isinstance(error, RefitError) else (str(error) or type(error).__name__)
        kind = ResourceExhausted if isinstance(error, (MemoryError, ResourceExhausted)) else InvalidArgument
        raise kind(
            f"tensor {self._name}: {reason} (a {_type_name(self._tensor)}){_way_out(self._name, error)}",
            tensor=self._name,
        ) from None


def _type_name(tensor: Any) -> str:
    kind = type(tensor)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def _way_out(name: str, error: Exception) -> str:
    if not (isinstance(error, TypeError) and str(error) == "it is no tensor"):
        return ""
    pattern = r".*_extra_state.*" if "_extra_state" in name else re.escape(name)
    return f'; leave it out with exclude_key_regex=r"{pattern}"'
