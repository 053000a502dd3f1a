"""Reads NumPy arrays, and other objects with ``__array_interface__``."""

from __future__ import annotations

import math
import sys
from typing import Any, Mapping, Optional, Sequence, Tuple

from refit import _refit
from refit.dtypes import dtype_name


def lend(array: Any, writable: bool) -> Tuple[str, Sequence[int], "_refit.Lent", bool]:
    """(dtype, shape, memory, whether it is a copy). TypeError if it cannot be read, or written."""
    interface = array.__array_interface__
    dtype, shape = dtype_name(array.dtype), tuple(int(size) for size in interface["shape"])
    _check_elements(interface, dtype)
    _check_bounds(array)
    if _has_masked(array):
        raise TypeError("some of its elements are masked; push array.filled(value), or array.data")
    is_copy = not _is_row_major(interface, shape)
    if is_copy:
        if writable:
            raise TypeError("it is not contiguous")
        begin, end = _span(array)
        _refit.Lent(begin, end - begin, array).check()
        array = sys.modules["numpy"].array(array, order="C", copy=True, subok=False)
        interface = array.__array_interface__
    address, read_only = _address(interface)
    if writable and read_only:
        raise TypeError("it is read-only")
    return dtype, shape, _refit.Lent(address, _refit.Part("it", dtype, shape).nbytes, array), is_copy


def _check_elements(interface: Mapping[str, Any], dtype: str) -> None:
    typestr = interface["typestr"]
    if typestr.startswith(">"):
        raise TypeError("its elements are big-endian")
    has, needs = int(typestr[2:]), _refit.Part("it", dtype, ()).nbytes
    if has != needs:
        raise TypeError(f"its elements have {has} bytes ({typestr}), those of {dtype} have {needs}")


def _address(interface: Mapping[str, Any]) -> Tuple[int, bool]:
    data = interface.get("data")
    if not isinstance(data, tuple):
        raise TypeError("its __array_interface__ gives no address")
    return int(data[0]), bool(data[1])


def _is_row_major(interface: Mapping[str, Any], shape: Tuple[int, ...]) -> bool:
    strides = interface.get("strides")
    if strides is None or 0 in shape:
        return True
    expected = int(interface["typestr"][2:])
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _has_masked(array: Any) -> bool:
    ma = sys.modules.get("numpy.ma")
    return ma is not None and bool(ma.is_masked(array))


def _span(array: Any) -> Tuple[int, int]:
    """[begin, end) of the addresses that the array claims."""
    interface = array.__array_interface__
    begin, _ = _address(interface)
    item = int(interface["typestr"][2:])
    shape = tuple(interface["shape"])
    strides = interface.get("strides")
    if strides is None:
        return begin, begin + item * math.prod(shape)
    reach = [(size - 1) * stride for size, stride in zip(shape, strides)]
    return begin + sum(r for r in reach if r < 0), begin + sum(r for r in reach if r > 0) + item


def _check_bounds(array: Any) -> None:
    """Checks that a view lies within the array that owns the memory, which may have been shrunk meanwhile."""
    root = _root(array)
    if root is None or 0 in array.shape:
        return
    begin, end = _span(array)
    low, high = _span(root)
    if begin < low or end > high:
        raise TypeError(
            f"its {end - begin} bytes lie outside of the {high - low} of the array that it is a view of: was that one resized?"
        )


def _root(array: Any) -> Optional[Any]:
    """The array that owns the memory: the last one along `base`."""
    root, base = None, getattr(array, "base", None)
    while base is not None:
        if hasattr(base, "__array_interface__"):
            root = base
        base = getattr(base, "base", None)
    return root
