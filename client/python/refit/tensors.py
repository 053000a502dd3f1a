"""Tensors of any library, as memory.

What is pushed may be a torch tensor, an array of NumPy, or anything that speaks DLPack or the buffer protocol; what is
pulled speaks both. Nothing here needs torch or NumPy; their tensors are recognised by what they can do. bfloat16 and
8-bit floats are passed as memory, without NumPy, which does not know them.
"""

from __future__ import annotations

import sys
from typing import Any, Iterator, Mapping, NamedTuple, Optional, Tuple

from refit import _refit
from refit.errors import InvalidArgument, Unimplemented

# Of torch, and of NumPy with ml_dtypes, which agree but for the 8-bit floats' case.
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES = {name: python for python, name in _DTYPES.items()}
_SHORT = {"fp64": "F64", "fp32": "F32", "fp16": "F16", "half": "F16", "float": "F32", "double": "F64"}


def dtype_name(dtype: Any) -> str:
    """The safetensors name of an element type.

    Args:
        dtype: a safetensors name in any case ("BF16"), a torch or NumPy dtype, or its name ("bfloat16").
    Raises:
        InvalidArgument: for what is no such type.
    """
    text = str(getattr(dtype, "name", dtype)).rsplit(".", 1)[-1].lower()
    known = _DTYPES.get(text) or _SHORT.get(text)
    return known if known is not None else _refit.parse_dtype(str(dtype))


def cast_name(dtype: Any) -> Optional[str]:
    """What to cast to, as dtype_name(); None: no cast."""
    return None if dtype is None else dtype_name(dtype)


class Lease(NamedTuple):
    """A tensor's memory, lent for a while."""

    dtype: str
    shape: Tuple[int, ...]
    memory: "_refit.Lent"


def is_torch(tensor: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def describe(name: str, tensor: Any) -> Tuple[str, Tuple[int, ...]]:
    """(dtype, shape) without a look at the values: of a torch tensor on any device, or what lend() takes."""
    if hasattr(tensor, "dtype") and hasattr(tensor, "shape"):
        try:
            return dtype_name(tensor.dtype), tuple(int(size) for size in tensor.shape)
        except InvalidArgument as error:
            raise InvalidArgument(f"tensor {name}: {error.message}", tensor=name) from None
    lease = lend(name, tensor)
    return lease.dtype, lease.shape


def lend(name: str, tensor: Any, writable: bool = False) -> Lease:
    """The memory of a tensor in host memory, row-major and without gaps; a copy of it if it is not (never if `writable`).

    Raises:
        InvalidArgument: for a tensor that is elsewhere (see refit.staging), or cannot be read as one.
    """
    try:
        if is_torch(tensor):
            return _lend_torch(tensor, writable)
        if hasattr(tensor, "__array_interface__"):
            return _lend_array(tensor, writable)
        if hasattr(tensor, "__dlpack__"):
            return _lend_dlpack(tensor)
        return _lend_buffer(tensor, writable)
    except (TypeError, BufferError, ValueError) as error:
        reason = error.message if isinstance(error, InvalidArgument) else str(error)
        raise InvalidArgument(f"tensor {name}: {reason}", tensor=name) from None


def _lend_torch(tensor: Any, writable: bool) -> Lease:
    if tensor.device.type != "cpu":
        raise TypeError(f"it is on {tensor.device}, not in host memory")
    if tensor.layout is not sys.modules["torch"].strided:
        raise TypeError(f"its layout is {tensor.layout}, not dense")
    held = tensor.detach()
    if not held.is_contiguous() or held.is_neg():
        if writable:
            raise TypeError("it is a view that is not contiguous, or of negated values")
        held = held.resolve_neg().contiguous()
    size = held.numel() * held.element_size()
    return Lease(dtype_name(held.dtype), tuple(held.shape), _refit.Lent(held.data_ptr(), size, held))


def _lend_array(array: Any, writable: bool) -> Lease:
    dtype = dtype_name(array.dtype)
    interface = array.__array_interface__
    if interface["typestr"].startswith(">"):
        raise TypeError("its elements are big-endian")
    if interface.get("strides") is not None:
        if writable:
            raise TypeError("it is not contiguous")
        array = array.copy(order="C")
        interface = array.__array_interface__
    address, read_only = interface["data"]
    if writable and read_only:
        raise TypeError("it is read-only")
    return Lease(dtype, tuple(interface["shape"]), _refit.Lent(address, array.nbytes, array))


def _lend_dlpack(tensor: Any) -> Lease:
    capsule = tensor.__dlpack__()
    dtype, shape, address = _refit.read_dlpack(capsule)
    part = _refit.Part("dlpack", dtype, shape)
    return Lease(dtype, tuple(shape), _refit.Lent(address, part.nbytes, (tensor, capsule)))


def _lend_buffer(tensor: Any, writable: bool) -> Lease:
    view = memoryview(tensor)
    formats = {
        "d": "F64",
        "f": "F32",
        "e": "F16",
        "q": "I64",
        "l": "I64",
        "i": "I32",
        "h": "I16",
        "b": "I8",
        "B": "U8",
        "?": "BOOL",
    }
    dtype = formats.get(view.format)
    if dtype is None:
        raise TypeError(f"its buffer's format is '{view.format}'")
    address, size, read_only = _refit.read_buffer(view)
    if writable and read_only:
        raise TypeError("it is read-only")
    return Lease(dtype, tuple(view.shape or ()), _refit.Lent(address, size, view))


class Tensor:
    """A pulled tensor, or the part of it that was asked for, in host memory that lives as long as it.

    Speaks DLPack (``torch.from_dlpack(t)``, ``numpy.from_dlpack(t)``) and the buffer protocol (``memoryview(t.memory)``:
    its bytes). The memory may be the service's own, mapped (writing to it changes this process's view only): let go of
    it before long.
    """

    __slots__ = ("memory", "_part")

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
        """Of what came: of the part."""
        return self._part.box.sizes

    @property
    def full_shape(self) -> Tuple[int, ...]:
        """Of the whole tensor."""
        return self._part.shape

    @property
    def offsets(self) -> Tuple[int, ...]:
        """Where the part begins in the whole tensor, in each dimension."""
        return self._part.box.offsets

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def __dlpack__(self, stream: Any = None, **_: Any) -> Any:
        return self.memory.dlpack()

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)

    def torch(self) -> Any:
        """A torch tensor on the same memory, of any element type that this torch knows."""
        import torch

        dtype = getattr(torch, _NAMES[self.dtype], None)
        if dtype is None:
            raise Unimplemented(f"tensor {self.name}: torch {torch.__version__} has no {self.dtype}", tensor=self.name)
        if self.nbytes == 0:
            return torch.empty(self.shape, dtype=dtype)
        return torch.from_dlpack(_Bytes(self.memory)).view(dtype).view(self.shape)

    def numpy(self) -> Any:
        """A NumPy array on the same memory; bfloat16 and 8-bit floats need the package ml_dtypes."""
        import numpy

        if self.dtype in ("BF16", "F8_E4M3", "F8_E5M2"):
            import ml_dtypes

            dtype = getattr(ml_dtypes, _NAMES[self.dtype])
        else:
            dtype = numpy.dtype(_NAMES[self.dtype])
        return numpy.frombuffer(self.memory, dtype=dtype).reshape(self.shape)

    def __repr__(self) -> str:
        return f"refit.Tensor({self._part!r})"


class _Bytes:
    """For torch.from_dlpack, as a row of bytes."""

    def __init__(self, memory: "_refit.TensorMemory"):
        self._memory = memory

    def __dlpack__(self, stream: Any = None, **_: Any) -> Any:
        return self._memory.dlpack_of_bytes()

    def __dlpack_device__(self) -> Tuple[int, int]:
        return (1, 0)


def targets_of(out: Optional[Mapping[str, Any]]) -> "_refit.Targets":
    """Memory for tensors by name, checked when a version comes. None: none."""
    targets = _refit.Targets()
    for name, tensor in (out or {}).items():
        dtype, shape, memory = lend(name, tensor, writable=True)
        targets.add(_refit.Part(name, dtype, shape), memory)
    return targets


def items_of(tensors: Any) -> Iterator[Tuple[str, Any]]:
    """(name, tensor) of a mapping, or of an iterable of pairs."""
    return iter(tensors.items() if hasattr(tensors, "items") else tensors)
