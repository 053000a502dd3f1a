"""What each of SGLang's tensor-parallel workers does with an update: all of them load it, or none does."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional, Sequence, Set
from weakref import WeakKeyDictionary

from refit.errors import FailedPrecondition
from refit.integrations.sglang.engine import forget_embeddings, groups
from refit.integrations.sglang.request import Pair, read
from refit.integrations.sglang.update import Update, pulled
from refit.integrations.shared.agreement import Agreement
from refit.integrations.shared.base import base_after
from refit.integrations.shared.contents import Contents
from refit.integrations.shared.failures import told
from refit.integrations.shared.given import Given
from refit.integrations.shared.going_back import Former, GoingBack
from refit.pulled_version import PulledVersion

# Seconds in which the workers hear of an update that one of them cannot even read.
_AGREE_WITHIN = 120.0
_TORN = "the model holds parts of two versions (torn): load a whole version before it generates anything"


def load(model: Any, named_tensors: Sequence[Pair]) -> None:
    """In each tensor-parallel worker: pulls the version that a descriptor stands for, all of it and verified, and gives
    it to ``model.load_weights`` once all workers have it.

    Raises:
        InvalidArgument: `named_tensors` is no descriptor, or the version is not like those before it, naming the
            tensor.
        RefitError: as Subscriber.pull().
        FailedPrecondition, DeadlineExceeded: another worker failed, or the load did; the message says how the model was
            left, and `torn` whether it holds parts of two versions. In all other cases it is as it was.
    """
    known = _known(model)
    with Agreement(groups(), _AGREE_WITHIN).all_or_none() as vote:  # nothing is touched yet
        wanted = read(named_tensors)
        vote.subject, vote.deadline = str(wanted), wanted.agree_within
        version = pulled(wanted, known.base)
        known.base = base_after(version, keep=wanted.keep_base)
        known.check(version, wanted.is_partial)
    _load_or_go_back(model, known, wanted, version)
    known.accept(wanted, version)
    forget_embeddings()


class _Model:
    """What is known of a model that takes versions."""

    def __init__(self) -> None:
        self.contents = Contents()
        self.base: Optional[PulledVersion] = None  # of the next pull
        self.loaded: Optional[Update] = None  # the last one, if it was whole
        self.torn: Set[str] = set()  # tensors that may be of another version than the rest

    def check(self, version: PulledVersion, is_partial: bool) -> None:
        left = self.torn.difference(tensor.name for tensor in version.tensors)
        if left:
            words = f"version {version.number} does not have {min(left)}, and {_TORN}"
            raise FailedPrecondition(words, tensor=min(left), version=version.number)
        self.contents.allow_partial = is_partial
        self.contents.check(version)

    def accept(self, update: Update, version: PulledVersion) -> None:
        self.torn.clear()
        self.loaded = None if update.is_partial else update
        if not update.is_partial:
            self.contents.accept(version)


_models: "WeakKeyDictionary[Any, _Model]" = WeakKeyDictionary()


def _known(model: Any) -> _Model:
    try:
        return _models.setdefault(model, _Model())
    except TypeError:  # it cannot be remembered: unhashable, or without weak references
        return _Model()


def _load_or_go_back(model: Any, known: _Model, wanted: Update, version: PulledVersion) -> None:
    def load_again(last: Update) -> None:
        _load_in_all(model, last, lambda: pulled(last, known.base))
        known.torn.clear()

    going_back = GoingBack(
        restored="the model has {} again, all of it",
        torn=_TORN,
        tear=lambda _: known.torn.update(tensor.name for tensor in version.tensors),
    )
    last = known.loaded
    former = None if last is None else Former(f"version {last.number}", partial(load_again, last))
    going_back.load(wanted.number, lambda: _load_in_all(model, wanted, lambda: version), former)


def _load_in_all(model: Any, wanted: Update, version: Callable[[], PulledVersion]) -> None:
    with Agreement(groups(), wanted.agree_within).all_or_none(way_out="weights were touched") as vote:
        vote.subject = str(wanted)
        _load(model, version(), wanted.is_partial)


def _load(model: Any, version: PulledVersion, is_partial: bool) -> None:
    """
    Raises:
        FailedPrecondition: naming the tensor at which load_weights raised, or parameters that it left as they were.
    """
    given = Given(version)
    try:
        loaded = model.load_weights(iter(given))
    except Exception as error:
        raise FailedPrecondition(
            f"version {version.number}{given.at}: load_weights raised {told(error)}",
            tensor=given.name,
            version=version.number,
        ) from error
    if not is_partial:
        _check_complete(model, loaded, version)


def _check_complete(model: Any, loaded: Any, version: PulledVersion) -> None:
    """Some models' load_weights say which parameters they have loaded; of the others nothing is known."""
    if not isinstance(loaded, (set, frozenset)) or not loaded or not hasattr(model, "named_parameters"):
        return
    if any(_is_quantised(module) for module in model.modules()):  # it has parameters that no checkpoint has
        return
    parameters: Set[str] = {name for name, _ in model.named_parameters()}
    left = sorted(parameters - loaded)
    if left and loaded <= parameters:
        raise FailedPrecondition(
            f"version {version.number} has nothing for the model's {left[0]} (and {len(left) - 1} more), which kept "
            "what it had; set allow_partial if this is meant",
            tensor=left[0],
            version=version.number,
        )


def _is_quantised(module: Any) -> bool:
    method = getattr(module, "quant_method", None)
    return method is not None and not type(method).__name__.startswith("Unquantized")
