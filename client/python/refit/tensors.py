"""Pulled tensors in host memory. Needs neither torch nor NumPy. NumPy does not know bfloat16 and smaller floats, so
these are passed as plain memory."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from refit import _refit
from refit.dtypes import PYTHON_NAMES
from refit.errors import Unimplemented
from refit.unpicklable import Unpicklable


# Types that NumPy knows only with ml_dtypes.
_BEYOND_NUMPY = ("BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
# Type codes of Python's struct and memoryview.
_LETTERS = {"F64": "d", "F32": "f", "I64": "q", "I32": "i", "I16": "h", "I8": "b"} | {
    "U64": "Q",
    "U32": "I",
    "U16": "H",
    "U8": "B",
    "BOOL": "?",
}


class Tensor(Unpicklable):
    """A pulled tensor, or the requested part of it, in host memory that it keeps alive.

    ``t.torch()``, ``t.numpy()`` and ``numpy.asarray(t)`` are views of it. Supports DLPack (``torch.from_dlpack(t)``,
    ``numpy.from_dlpack(t)``) and the buffer protocol (``memoryview(t.memory)``: its bytes). The memory may be the
    service's own, mapped here; writing to it changes only this process's view. Do not keep it for long.
    """

    __slots__ = ("memory", "_part")
    _unpicklable_since = "its memory may be the service's, mapped; pass on a copy, such as t.numpy().copy()"

    def __init__(self, memory: "_refit.TensorMemory"):
        self.memory = memory
        self._part = memory.part

    @property
    def name(self) -> str:
        return self._part.name

    @property
    def dtype(self) -> str:
        """The safetensors name, such as "BF16"."""
        return self._part.dtype

    @property
    def shape(self) -> Tuple[int, ...]:
        """Shape of the part."""
        return self._part.box.sizes

    @property
    def full_shape(self) -> Tuple[int, ...]:
        """Shape of the whole tensor."""
        return self._part.shape

    @property
    def offsets(self) -> Tuple[int, ...]:
        """Offsets of the part in the whole tensor, one for each dimension."""
        return self._part.box.offsets

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def __dlpack__(
        self, *, stream: Any = None, dl_device: Optional[Tuple[int, int]] = None, copy: Optional[bool] = None, **_: Any
    ) -> Any:
        """Exports a view, never a copy. BufferError if something else is requested."""
        if copy:
            raise BufferError(f"tensor {self.name}: it is given as a view; copy what you make of it")
        if dl_device is not None and tuple(int(part) for part in dl_device) != self.__dlpack_device__():
            raise BufferError(f"tensor {self.name}: it is in host memory, not on DLPack device {tuple(dl_device)}")
        return self.memory.dlpack()

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)

    def torch(self) -> Any:
        """A torch tensor on the same memory, of any element type that the installed torch knows."""
        import torch

        dtype = getattr(torch, PYTHON_NAMES.get(self.dtype, ""), None)
        if dtype is None:
            raise Unimplemented(f"tensor {self.name}: torch {torch.__version__} has no {self.dtype}", tensor=self.name)
        if self.nbytes == 0:
            return torch.empty(self.shape, dtype=dtype, device="cpu")
        return torch.from_dlpack(_Bytes(self.memory)).view(dtype).view(self.shape)

    def numpy(self) -> Any:
        """A NumPy array on the same memory. bfloat16 and 8-bit floats need the package ml_dtypes. Packed types are not
        supported."""
        import numpy

        if self.dtype.endswith("_PACKED"):
            raise Unimplemented(
                f"tensor {self.name}: NumPy has no {self.dtype}; take the bytes, numpy.frombuffer(t.memory, numpy.uint8)",
                tensor=self.name,
            )
        dtype = numpy.dtype(self._beyond_numpy() if self.dtype in _BEYOND_NUMPY else PYTHON_NAMES[self.dtype])
        if self.nbytes == 0:
            return numpy.empty(self.shape, dtype=dtype)
        return numpy.frombuffer(self.memory, dtype=dtype).reshape(self.shape)

    def _beyond_numpy(self) -> Any:
        try:
            import ml_dtypes
        except ImportError:
            raise Unimplemented(
                f"tensor {self.name}: NumPy has no {self.dtype}; install ml_dtypes, or use torch(), or the bytes, "
                "numpy.frombuffer(t.memory, numpy.uint8)",
                tensor=self.name,
            ) from None
        return getattr(ml_dtypes, PYTHON_NAMES[self.dtype])

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> Any:
        """For numpy.asarray(t): a view, unless another dtype or copy=True is requested."""
        array = self.numpy()
        if dtype is None or array.dtype == dtype:
            return array.copy() if copy else array
        if copy is False:
            raise ValueError(f"tensor {self.name}: {self.dtype} as {dtype} needs a copy, which copy=False forbids")
        return array.astype(dtype)

    def tolist(self) -> Any:
        """The values as Python numbers, in nested lists. Types that C has need neither torch nor NumPy."""
        letter = _LETTERS.get(self.dtype)
        if letter is None or self.nbytes == 0 or not self.shape:
            return self.numpy().tolist()
        return memoryview(self.memory).cast(letter, list(self.shape)).tolist()

    def __repr__(self) -> str:
        return f"refit.Tensor({self._part!r})"


class _Bytes:
    """The bytes as a row, for torch.from_dlpack."""

    def __init__(self, memory: "_refit.TensorMemory"):
        self._memory = memory

    def __dlpack__(self, stream: Any = None, **_: Any) -> Any:
        return self._memory.dlpack_of_bytes()

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)
