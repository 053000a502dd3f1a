"""Models that load weights as SGLang's do."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Set, Tuple

from integrations_support import torch

_STACKED = {"q_proj": 0, "k_proj": 1, "v_proj": 2}


class PlainModel:
    """Keeps what it is given, under the names that it came by."""

    def __init__(self) -> None:
        self.loaded: Dict[str, Any] = {}

    def load_weights(self, named_tensors: Any) -> None:
        self.loaded.update(named_tensors)


class StackedModel(torch.nn.Module):
    """Stacks the checkpoint's q, k and v into one parameter, and passes over names that it does not know."""

    def __init__(self, layers: int = 2, says: bool = False):
        """
        Args:
            says: load_weights returns the names of the parameters that it has loaded.
        """
        super().__init__()
        self._says = says
        self.layers = torch.nn.ModuleList()
        for _ in range(layers):
            layer = torch.nn.Module()
            layer.qkv_proj = torch.nn.Parameter(torch.zeros(3, 4))
            layer.norm = torch.nn.Parameter(torch.zeros(4))
            self.layers.append(layer)

    def load_weights(self, weights: Iterable[Tuple[str, Any]]) -> Any:
        parameters = dict(self.named_parameters())
        loaded: Set[str] = set()
        for name, tensor in weights:
            stem, _, last = name.rpartition(".")
            is_stacked = last in _STACKED
            parameter = parameters.get(f"{stem}.qkv_proj" if is_stacked else name)
            if parameter is None:
                continue
            target = parameter.data[_STACKED[last]] if is_stacked else parameter.data
            assert target.shape == tensor.shape, f"Attempted to load {tensor.shape} into {target.shape}"
            target.copy_(tensor)
            loaded.add(f"{stem}.qkv_proj" if is_stacked else name)
        return loaded if self._says else None

    def values(self) -> Set[float]:
        """All that the parameters have in them."""
        return {float(value) for parameter in self.parameters() for value in parameter.detach().reshape(-1)}


def checkpoint(value: float, layers: int = 2) -> Dict[str, Any]:
    """Of one value throughout."""
    tensors = {}
    for layer in range(layers):
        for last in (*_STACKED, "norm"):
            tensors[f"layers.{layer}.{last}"] = torch.full((4,), float(value))
    return tensors
