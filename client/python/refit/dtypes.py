"""Names of element types in torch, NumPy and safetensors."""

from __future__ import annotations

from typing import Any, Optional

from refit import _refit

# Names in torch and in NumPy with ml_dtypes. They differ only in the case of the 8-bit floats. Packed types exist only
# in torch.
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
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "complex64": "C64",
    "float4_e2m1fn_x2": "F4_PACKED",
}
_SHORT = {"fp64": "F64", "fp32": "F32", "fp16": "F16", "half": "F16", "float": "F32", "double": "F64"}

# The names in torch, and in NumPy with ml_dtypes.
PYTHON_NAMES = {name: python for python, name in _DTYPES.items()}


def dtype_name(dtype: Any) -> str:
    """The safetensors name of an element type.

    Args:
        dtype: a safetensors name in any case ("BF16"), a torch or NumPy dtype, or its name ("bfloat16").
    Raises:
        InvalidArgument: for anything else.
    """
    text = str(getattr(dtype, "name", dtype)).rsplit(".", 1)[-1].lower()
    known = _DTYPES.get(text) or _SHORT.get(text)
    return known if known is not None else _refit.parse_dtype(str(dtype))


def cast_name(dtype: Any) -> Optional[str]:
    """The element type to cast to, as dtype_name(). None: no cast."""
    return None if dtype is None else dtype_name(dtype)
