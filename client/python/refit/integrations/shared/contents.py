"""What an engine's versions have in them. The first one that was loaded says which tensors all later ones must have.

Engines themselves do not check it. If a version lacks some of a model's tensors, those of the former version stay in
use, and the engine serves a mixture.
"""

from __future__ import annotations

from typing import Dict, Tuple

from refit.errors import InvalidArgument
from refit.pulled_version import PulledVersion

Kind = Tuple[str, Tuple[int, ...]]  # (safetensors' name of the dtype, shape)

_WAY_OUT = "; set allow_partial if this is meant"


class Contents:
    """Names, dtypes and shapes. Not thread-safe."""

    def __init__(self, *, allow_partial: bool = False):
        """
        Args:
            allow_partial: a version may lack some of them, or bring new ones; dtypes and shapes stay the same.
        """
        self.allow_partial = allow_partial
        self._known: Dict[str, Kind] = {}
        self._by_version = 0

    @property
    def is_known(self) -> bool:
        """A version has been accepted."""
        return bool(self._known)

    def check(self, version: PulledVersion) -> None:
        """Compares a version with those that were accepted. Anything goes before the first.

        Raises:
            InvalidArgument: naming the tensor: it is missing, new, or of another dtype or shape.
        """
        if not self.is_known:
            return
        kinds = _kinds(version)
        for name, kind in kinds.items():
            if self._known.get(name, kind) != kind:
                raise self._wrong(version, name, f"expected {_words(self._known[name])}, got {_words(kind)}")
        if self.allow_partial:
            return
        missing = [name for name in self._known if name not in kinds]
        if missing:
            raise self._wrong(version, missing[0], f"it is missing{_others(missing)}", _WAY_OUT)
        new = [name for name in kinds if name not in self._known]
        if new:
            raise self._wrong(version, new[0], f"there was none of this name{_others(new)}", _WAY_OUT)

    def accept(self, version: PulledVersion) -> None:
        """After its load: later versions must be like it."""
        if not self._known:
            self._by_version = version.number
        self._known.update(_kinds(version))

    def _wrong(self, version: PulledVersion, name: str, reason: str, way_out: str = "") -> InvalidArgument:
        return InvalidArgument(
            f"version {version.number}, tensor {name}: {reason}, compared with version {self._by_version}, the first "
            f"that was loaded{way_out}",
            tensor=name,
            version=version.number,
        )


def _kinds(version: PulledVersion) -> Dict[str, Kind]:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in version.tensors}


def _words(kind: Kind) -> str:
    return f"{kind[0]} {list(kind[1])}"


def _others(names: "list[str]") -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
