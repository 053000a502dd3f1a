"""How vLLM loads weights into a model that runs already.

After its first load vLLM may keep weights in its kernels' own layout. Its layerwise reload (from vLLM 0.16 on) takes
those in the checkpoint's layout again: it puts the model on meta, runs the model's own loaders there to see what they
take, and fills a layer once all of it has come. Here no layer is filled before all of the version has been through the
loaders, so that whatever they refuse leaves the model as it was. Older versions have load_weights alone.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from typing import Any, Callable, ContextManager, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

Pair = Tuple[str, Any]

# A layer's count begins here while it is held: so far below zero that vLLM never takes the layer for complete.
_HELD = -(2**62)


class Slot(NamedTuple):
    """A place in the model that a loader filled: a parameter or buffer, or the part of one that its arguments name."""

    layer: str
    parameter: str
    part: Tuple[Any, ...]  # such as ("k",), or an expert and its matrix
    is_buffer: bool = False

    def __str__(self) -> str:
        name = f"{self.layer}.{self.parameter}" if self.layer else self.parameter
        return f"{name} ({', '.join(map(str, self.part))})" if self.part else name


class Reload:
    """One load, in two steps: prepare(), and then commit() or abandon(). In between the model has no weights and must
    not run. For one thread."""

    def __init__(self, model: Any, model_config: Any, device: Any = None):
        """
        Args:
            device: where older versions make a layer's new tensors; None: torch's default.
        """
        self._model = model
        self._model_config = model_config
        self._device = device
        self._layers: List[Tuple[str, Any, Any]] = []  # (name, layer, vLLM's LayerReloadingInfo)
        self._held: List[Pair] = []

    @staticmethod
    def can_prepare() -> bool:
        """This vLLM has a layerwise reload of the form that is known here. Without, prepare() checks nothing."""
        info = getattr(_module("vllm.model_executor.model_loader.reload.types"), "LayerReloadingInfo", None)
        known = {"load_numel", "load_numel_total", "loaded_weights", "kernel_tensors"}
        return info is not None and known <= set(getattr(info, "__dataclass_fields__", ()))

    def prepare(self, weights: Iterable[Pair]) -> None:
        """Gives (name, tensor) pairs to the model's loaders, which write nothing yet. What they raise comes out:
        abandon() then. Keeps the tensors until commit() or abandon()."""
        if not self.can_prepare():
            self._held = list(weights)
            return
        with self._on_device():
            _reload_function("initialize_layerwise_reload")(self._model)
            self._layers = list(_loading_layers(self._model))
            for _, _, info in self._layers:
                info.load_numel = _HELD
            self._load(weights)

    def filled(self) -> Set[Slot]:
        """What the loaders took, after prepare()."""
        return {
            Slot(name, parameter, _part(arguments), parameter in info.kernel_tensors[1])
            for name, _, info in self._layers
            for parameter, arguments in info.loaded_weights
        }

    def unfilled(self, expected: Optional[Set[Slot]] = None, *, in_touched_layers: bool = False) -> List[str]:
        """What of the model got nothing, after prepare().

        Args:
            expected: what should be filled. Without: every parameter, and all of each linear layer, but for attention
                (its scales have defaults) and for parameters that are tied to one that came. Buffers are not trained,
                and sources of parameters alone lack them: a layer that gets nothing keeps them.
            in_touched_layers: only in layers that got something: vLLM fills a layer anew, so that the rest of it would
                have no values at all.
        """
        filled = self.filled()
        if expected is not None:
            touched = {slot.layer for slot in filled}
            missing = sorted(expected - filled, key=str)
            keeps = [slot for slot in missing if slot.layer not in touched and (slot.is_buffer or in_touched_layers)]
            return [str(slot) for slot in missing if slot not in keeps]
        tied = self._tied()
        return [
            words
            for name, layer, info in self._layers
            if info.loaded_weights or not in_touched_layers
            for words in _unfilled_in(name, layer, info, tied)
        ]

    def fills(self, expected: Optional[Set[Slot]]) -> bool:
        """After prepare(): nothing of the model is left as it was."""
        return self.can_prepare() and not self.unfilled(expected)

    def _tied(self) -> Set[int]:
        """Identities of the parameters that came, under whichever name."""
        return {
            id(info.kernel_tensors[0].get(parameter))
            for _, _, info in self._layers
            for parameter in {name for name, _ in info.loaded_weights}
        }

    def commit(self) -> None:
        """Fills the model. If it raises, layers have weights of both versions; abandon(), and load another version."""
        with self._on_device():
            if not self.can_prepare():
                self._load(self._held)
            else:
                for _, _, info in self._layers:
                    info.load_numel -= _HELD
                    # vLLM's finalize passes over a layer whose count is full: it takes it for filled.
                    info.load_numel_total = info.load_numel + 1
                _reload_function("finalize_layerwise_reload")(self._model, self._model_config)
        _synchronize()
        self._layers, self._held = [], []

    def abandon(self) -> None:
        """Gives every layer that is not filled yet its former weights back. Idempotent; does nothing after commit()."""
        place = getattr(_module("vllm.model_executor.model_loader.reload.layerwise"), "_place_kernel_tensors", None)
        for _, layer, info in self._layers:
            if info.can_load():
                place(layer, info)  # type: ignore[misc]
                info.reset()
        if self._layers:
            self._model._do_torchao_reload = getattr(self._model, "_original_do_torchao_reload", False)
        self._layers, self._held = [], []

    def _load(self, weights: Iterable[Pair]) -> None:
        with _without_mtp_check():
            self._model.load_weights(iter(weights))

    def _on_device(self) -> ContextManager[Any]:
        if self._device is None:
            return nullcontext()
        import torch

        return torch.device(self._device)  # type: ignore[return-value]


def _synchronize() -> None:
    """Copies to an accelerator may still read the version's memory."""
    import torch

    accelerator = getattr(torch, "accelerator", None)
    if accelerator is not None and accelerator.is_available():
        accelerator.synchronize()
    elif torch.cuda.is_available():
        torch.cuda.synchronize()


def _loading_layers(model: Any) -> Iterator[Tuple[str, Any, Any]]:
    info_of = getattr(_module("vllm.model_executor.model_loader.reload.layerwise"), "get_layerwise_info")
    for name, layer in model.named_modules():
        info = info_of(layer)
        if info.can_load():
            yield name, layer, info


def _part(arguments: Any) -> Tuple[Any, ...]:
    """What a loader was told besides the parameter and the tensor."""
    return tuple(value for value in arguments.arguments.values() if isinstance(value, (str, int)) and value is not True)


def _unfilled_in(name: str, layer: Any, info: Any, tied: Set[int]) -> List[str]:
    if _is_attention()(layer):
        return []
    came = {parameter for parameter, _ in info.loaded_weights}
    nothing = [
        parameter for parameter, own in info.kernel_tensors[0].items() if parameter not in came and id(own) not in tied
    ]
    count = info.load_numel - _HELD
    if not nothing and came and isinstance(layer, _linear()) and count < info.load_numel_total:
        return [f"{name} ({count} of {info.load_numel_total} elements)"]
    return [f"{name}.{parameter}" for parameter in nothing]


def _linear() -> Any:
    """vLLM's class of them, whose parameters have no padding."""
    return getattr(_module("vllm.model_executor.layers.linear"), "LinearBase", ())


def _is_attention() -> Callable[[Any], bool]:
    function = getattr(_module("vllm.model_executor.layers.attention"), "is_deferred_attention_layer", None)
    return function if function is not None else lambda layer: "attention" in type(layer).__name__.lower()


def _reload_function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(_module("vllm.model_executor.model_loader.reload"), name)
    return function


def _without_mtp_check() -> ContextManager[Any]:
    """Trainers need not have the layers for multi-token prediction, which newer versions insist on in a first load."""
    validation = _module("vllm.model_executor.model_loader.mtp_validation")
    return nullcontext() if validation is None else validation.disable_mtp_completeness_check()


def _module(name: str) -> Any:
    """One of vLLM's modules, or None if this vLLM has no such. What it fails to import itself comes out."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("vllm"):
            raise
        return None
