"""Reads objects with Python's buffer protocol, such as bytes, array.array, mmap and ctypes arrays."""

from __future__ import annotations

import sys
from typing import Any, Sequence, Tuple

from refit import _refit

_KINDS = {"?": "BOOL", "B": "U8", "c": "U8"}
_KINDS.update(dict.fromkeys("dfe", "F"), **dict.fromkeys("qlihb", "I"), **dict.fromkeys("QLIH", "U"))
_OWN_ORDER = "<" if sys.byteorder == "little" else ">"


def is_buffer(tensor: Any) -> bool:
    try:
        memoryview(tensor).release()
    except TypeError:
        return False
    return True


def lend(tensor: Any, writable: bool) -> Tuple[str, Sequence[int], "_refit.Lent", bool]:
    """(dtype, shape, memory, False). TypeError if it cannot be read, or written."""
    view = memoryview(tensor)
    dtype = _dtype(view)
    address, size, read_only = _refit.read_buffer(view)
    if writable and read_only:
        raise TypeError("it is read-only")
    return dtype, view.shape or (), _refit.Lent(address, size, view), False


def _dtype(view: memoryview) -> str:
    letter = view.format.lstrip("@=" + _OWN_ORDER)
    kind = _KINDS.get(letter)
    if kind is None:
        raise TypeError(f"its buffer's format is '{view.format}'")
    return kind if kind in ("BOOL", "U8") else f"{kind}{8 * view.itemsize}"
