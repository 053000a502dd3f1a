"""Reads torch tensors, subclasses and DTensors. Checks what they claim against the storage that they have."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any, ContextManager, Optional, Sequence, Tuple

from refit import _refit
from refit.dtypes import dtype_name

# Devices whose tensors have a storage with an address. For others, such as XLA, the code that copies from the device
# checks.
_WITH_STORAGE = ("cpu", "cuda", "xpu", "meta")

# (version counter, bytes of its storage, address)
Stamp = Tuple[Optional[int], int, int]


def is_torch(tensor: Any) -> bool:
    module = sys.modules.get("torch")
    return module is not None and isinstance(tensor, module.Tensor)


def is_dtensor(tensor: Any) -> bool:
    return hasattr(tensor, "placements") and hasattr(tensor, "device_mesh") and hasattr(tensor, "to_local")


def local(tensor: Any) -> Any:
    """The part of a DTensor that this rank holds; any other tensor as it is. Waits for a collective to end."""
    return _final(tensor.to_local() if is_dtensor(tensor) else tensor)


def _final(tensor: Any) -> Any:
    """An AsyncCollectiveTensor is not ready yet: its values come when the collective ends."""
    collectives = sys.modules.get("torch.distributed._functional_collectives")
    promise = getattr(collectives, "AsyncCollectiveTensor", None)
    return tensor.wait() if promise is not None and isinstance(tensor, promise) else tensor


def describe(tensor: Any) -> Tuple[str, Tuple[int, ...]]:
    """(dtype, shape). For a DTensor, those of the whole."""
    with _as_plain_tensor():
        return dtype_name(tensor.dtype), tuple(int(size) for size in tensor.shape)


def device_of(tensor: Any) -> Any:
    with _as_plain_tensor():
        return tensor.device


def check(tensor: Any) -> None:
    """Checks that the tensor is dense and has all the memory that its shape and strides claim, on any device. TypeError
    if not."""
    with _as_plain_tensor():
        _check_kind(tensor)
        if tensor.device.type in _WITH_STORAGE:
            _check_storage(tensor)


def lend(tensor: Any, writable: bool) -> Tuple[str, Sequence[int], "_refit.Lent", bool]:
    """(dtype, shape, memory, whether it is a copy). TypeError if it cannot be read, or written."""
    tensor = local(tensor)
    check(tensor)
    with _as_plain_tensor():
        if tensor.device.type != "cpu":
            raise TypeError(f"it is on {tensor.device}, not in host memory")
        dtype = dtype_name(tensor.dtype)
        shape = tuple(tensor.shape)
        is_copy = not tensor.is_contiguous() or tensor.is_neg() or tensor.is_conj()
        if is_copy and writable:
            raise TypeError("it is a view that is not contiguous, or of negated values")
        size = tensor.numel() * tensor.element_size()
        if not is_copy:
            # Keeps the storage alive, not the tensor: the tensor may get another storage.
            return dtype, shape, _refit.Lent(tensor.data_ptr(), size, _storage(tensor)), False
        copy = _contiguous(tensor)
        return dtype, shape, _refit.Lent(copy.data_ptr(), size, copy), True


def stamp(tensor: Any) -> Stamp:
    """A value that changes when torch writes, frees or moves the tensor. Writes by others, such as collectives, do not
    change it."""
    with _as_plain_tensor():
        counter = None if tensor.is_inference() else tensor._version
        return counter, _storage(tensor).nbytes(), tensor.data_ptr()


def span(tensor: Any) -> Tuple[int, int]:
    """[begin, end) of the addresses that the tensor claims, on its device."""
    with _as_plain_tensor():
        begin = tensor.data_ptr()
        return begin, begin + _claimed(tensor) - tensor.storage_offset() * tensor.element_size()


_NO_DATA = " and has no data"
_NO_MEMORY = "it has no memory of its own, as tensors that wrap others have none; push the tensor that it stands for"


def _as_plain_tensor() -> ContextManager[Any]:
    """In this block, a subclass's __torch_function__ is not called."""
    module = sys.modules.get("torch")
    native = getattr(module, "_C", None)
    disabled = getattr(native, "DisableTorchFunctionSubclass", None) or getattr(native, "DisableTorchFunction", None)
    return disabled() if disabled is not None else nullcontext()


def _is_meta(tensor: Any) -> bool:
    return bool(tensor.device.type == "meta")


def _check_kind(tensor: Any) -> None:
    module = sys.modules["torch"]
    if module.nn.parameter.is_lazy(tensor):
        raise TypeError("it is not initialised yet")
    if tensor.layout is not module.strided:
        raise TypeError(f"its layout is {tensor.layout}, not dense")
    if getattr(tensor, "is_nested", False):
        raise TypeError("it is nested, not dense")
    if tensor.is_quantized:
        raise TypeError(f"it is quantised ({tensor.dtype})")
    if _is_meta(tensor):
        raise TypeError("it is on meta" + _NO_DATA)


def _check_storage(tensor: Any) -> None:
    try:
        storage = _storage(tensor)
        address = tensor.data_ptr()
    except (RuntimeError, NotImplementedError):  # functorch's wrappers, and all wrappers of older torch versions
        raise TypeError(_NO_MEMORY) from None
    if storage.device.type == "meta":  # FakeTensor
        raise TypeError(_NO_MEMORY)
    claimed, has = _claimed(tensor), storage.nbytes()
    if claimed > has:
        raise TypeError(
            f"{tensor.dtype} {list(tensor.shape)} with strides {list(tensor.stride())} from element "
            f"{tensor.storage_offset()} on needs {claimed} bytes, but its storage has {has}: was it freed, or shrunk, as FSDP "
            "frees what it has gathered?"
        )
    if claimed != 0 and address == 0:
        raise TypeError(_NO_MEMORY)


def _claimed(tensor: Any) -> int:
    """Bytes of the storage that the tensor uses, from first to last."""
    if tensor.numel() == 0:
        return 0
    last = sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride()))
    return int(tensor.storage_offset() + last + 1) * int(tensor.element_size())


def _storage(tensor: Any) -> Any:
    if hasattr(tensor, "untyped_storage"):
        return tensor.untyped_storage()
    return tensor.storage().untyped()  # torch 1


def _contiguous(tensor: Any) -> Any:
    """A row-major copy. torch itself makes it, whatever the subclass is."""
    storage = _storage(tensor)
    begin, end = span(tensor)
    _refit.Lent(begin, end - begin, storage).check()
    plain = sys.modules["torch"].empty(0, dtype=tensor.dtype, device="cpu")
    plain.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
    copy = plain.contiguous()
    copy = copy.neg() if tensor.is_neg() else copy
    return copy.conj_physical() if tensor.is_conj() else copy
