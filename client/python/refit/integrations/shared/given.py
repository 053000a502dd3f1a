"""A version's tensors on their way into an engine's model."""

from __future__ import annotations

from typing import Any, Iterator, Optional, Tuple

from refit.pulled_version import PulledVersion


class Given:
    """Iterates over a version's (name, torch tensor) pairs, for a model's loaders.

    Attributes:
        name, kind: of the tensor that was given last: what a loader that raises has raised at.
    """

    def __init__(self, version: PulledVersion):
        self._version = version
        self.name: Optional[str] = None
        self.kind = ""

    def __iter__(self) -> Iterator[Tuple[str, Any]]:
        for tensor in self._version.tensors:
            self.name, self.kind = tensor.name, f"{tensor.dtype} {list(tensor.shape)}"
            yield tensor.name, tensor.torch()

    @property
    def at(self) -> str:
        """Of that tensor, for a message; empty if none was given."""
        return "" if self.name is None else f", tensor {self.name}"
