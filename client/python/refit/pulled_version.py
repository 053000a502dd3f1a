"""The result of a pull: a version's tensors, complete and verified."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from refit import _refit
from refit.tensors import Tensor
from refit.traffic import Traffic
from refit.unpicklable import Unpicklable
from refit.version import VersionInfo


class PulledVersion(Unpicklable):
    """The tensors of a version, complete and verified. Iterates over (name, tensor) in manifest order.

    Tensors are torch tensors if torch is already imported, else refit.Tensor. `tensors` always has refit.Tensor.

    Attributes:
        info: describes the version.
        seconds, waited_seconds: how long the pull took, and how much of that was waiting for the service.
        resumed: how often the connection broke and the pull continued.
        streams: over how many connections it came at most.
        address, moved: the service that it came from in the end, and how often the pull went on to another one.
        not_mapped: why tensors came over the connection although the service is on this host; empty otherwise.
        skipped: versions committed between `installed` and this one.
        traffic: in which form the bytes came, and of which base.
        selection_digest: over the tensors as they were pulled.
        targets: the tensors that were given to receive into, by name; none if the memory is refit's.
    """

    _unpicklable_since = (
        "its memory may be the service's, mapped; pass on copies, such as tensor.clone(), or have it pulled there"
    )

    def __init__(self, result: Dict[str, Any], memories: List["_refit.TensorMemory"], out: Mapping[str, Any]):
        self.info = VersionInfo.of(result)
        self.seconds: float = result["seconds"]
        self.waited_seconds: float = result.get("waited_seconds", 0.0)
        self.resumed: int = result.get("resumed", 0)
        self.streams: int = result.get("streams", 1)
        self.address: str = result["address"]
        self.moved: int = result["moved"]
        self.not_mapped: str = result.get("not_mapped", "")
        self.skipped: List[int] = result["skipped"]
        self.traffic = Traffic.of(result["traffic"])
        self.selection_digest: int = result["selection_digest"]
        self.tensors: List[Tensor] = [Tensor(memory) for memory in memories]
        self.targets: Dict[str, Any] = {tensor.name: out[tensor.name] for tensor in self.tensors if out}
        self._by_name: Optional[Dict[str, Tensor]] = None
        if self.not_mapped:
            warnings.warn(
                f"version {self.number} came over the connection, although the service is on this host: "
                f"{self.not_mapped}",
                RuntimeWarning,
                stacklevel=3,
            )

    @property
    def number(self) -> int:
        return self.info.version

    def __len__(self) -> int:
        return len(self.tensors)

    def __iter__(self) -> Iterator[Tuple[str, Any]]:
        as_torch = "torch" in sys.modules
        for tensor in self.tensors:
            yield tensor.name, tensor.torch() if as_torch else tensor

    def __getitem__(self, name: str) -> Any:
        if self._by_name is None:
            self._by_name = {tensor.name: tensor for tensor in self.tensors}
        tensor = self._by_name[name]
        return tensor.torch() if "torch" in sys.modules else tensor

    def state_dict(self) -> Dict[str, Any]:
        """All tensors by name."""
        return dict(self)

    def __repr__(self) -> str:
        return f"refit.PulledVersion({self.info.model}/{self.number}, {len(self)} tensors, {self.info.bytes} bytes)"
