"""Reads tensors of other libraries through DLPack."""

from __future__ import annotations

from typing import Any, Sequence, Tuple

from refit import _refit


def lend(tensor: Any, writable: bool) -> Tuple[str, Sequence[int], "_refit.Lent", bool]:
    """(dtype, shape, memory, False). TypeError if it cannot be read, or written. The capsule is kept unused, because it
    keeps the memory alive."""
    _check_device(tensor)
    capsule = _capsule(tensor)
    if type(capsule).__name__ != "PyCapsule":
        raise TypeError(f"its __dlpack__() gave a {type(capsule).__name__}, no capsule")
    dtype, shape, address, read_only = _refit.read_dlpack(capsule)
    if writable and read_only:
        raise TypeError("it is read-only")
    size = _refit.Part("it", dtype, shape).nbytes
    return dtype, shape, _refit.Lent(address, size, (tensor, capsule)), False


def _check_device(tensor: Any) -> None:
    """Checks the device before the tensor is exported: an export may make a copy, or wait for the device."""
    if not hasattr(tensor, "__dlpack_device__"):
        return
    kind = int(tensor.__dlpack_device__()[0])
    if not _refit.is_dlpack_host_memory(kind):
        raise TypeError(f"it is on DLPack device type {kind}, not in host memory")


def _capsule(tensor: Any) -> Any:
    try:
        return tensor.__dlpack__(max_version=(1, 0))
    except TypeError:  # older than DLPack 1.0
        return tensor.__dlpack__()
