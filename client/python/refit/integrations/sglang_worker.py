"""What SGLang's tensor-parallel workers do with an update: all of them load it, or none does.

SGLang's modules are only used where SGLang has imported them.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple
from weakref import WeakKeyDictionary

from refit.calls import Calls
from refit.errors import Cancelled, DeadlineExceeded, FailedPrecondition, InvalidArgument, RefitError
from refit.integrations.agreement import Agreement
from refit.integrations.contents import Contents
from refit.pulled_version import PulledVersion
from refit.subscriber import Subscriber

LOADER = "refit.integrations.sglang.load"
# Options that are the pull's; those that are not Update's own either are the connection's.
_OF_PULL = ("trainer_epoch", "filter", "names", "idle_timeout", "resume_within", "copy")
_OWN = ("allow_partial", "pull_within", "agree_within")
_PATIENCE = {"idle_timeout": 10.0, "resume_within": 5.0}
_CONNECT_TIMEOUT = 5.0

_TORN = "the model holds parts of two versions (torn): load a whole version before it generates anything"


@dataclass
class Update:
    """A version to load.

    Attributes:
        address, number: which one.
        connection, pull: options of Subscriber and of its pull().
        allow_partial: it may lack tensors that former versions had, or bring new ones. Versions that are pulled in part
            (`filter`, `names`) always may.
        pull_within: seconds in which it must be here, all of it: the engine stands still meanwhile.
        agree_within: seconds in which all workers must have it.
    """

    address: str
    number: int
    connection: Dict[str, Any] = field(default_factory=dict)
    pull: Dict[str, Any] = field(default_factory=dict)
    allow_partial: bool = False
    pull_within: float = 60.0
    agree_within: float = 120.0

    @classmethod
    def of(cls, address: str, number: int, options: Dict[str, Any]) -> "Update":
        """From a descriptor's options.

        Raises:
            InvalidArgument: naming one that has to be a number of seconds.
        """
        for name in ("pull_within", "agree_within"):
            if not isinstance(options.get(name, 1), (int, float)):
                raise InvalidArgument(f"version {number}: {name} {options[name]!r}: expected seconds", version=number)
        rest = dict(options)
        pull = {**_PATIENCE, **{name: rest.pop(name) for name in _OF_PULL if name in rest}}
        own = {name: rest.pop(name) for name in _OWN if name in rest}
        return cls(address, number, {"connect_timeout": _CONNECT_TIMEOUT, **rest}, pull, **own)

    @property
    def is_partial(self) -> bool:
        return bool(self.allow_partial or self.pull.get("filter") or self.pull.get("names"))

    def __str__(self) -> str:
        return f"version {self.number} of {self.address}"


class _Model:
    """What is known of a model that takes versions."""

    def __init__(self) -> None:
        self.contents = Contents()
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


def update(model: Any, read: Callable[[], Update]) -> None:
    """As refit.integrations.sglang.load().

    Args:
        read: gives the update, or raises.
    """
    known = _known(model)
    wanted, version = _pulled_by_all(known, read)
    try:
        _load_in_all(model, wanted, lambda: version)
    except Exception as error:
        known.torn.update(tensor.name for tensor in version.tensors)
        raise _gone_back(model, known, wanted, error) from error
    known.accept(wanted, version)
    _forget_embeddings()


def _known(model: Any) -> _Model:
    try:
        return _models.setdefault(model, _Model())
    except TypeError:  # it cannot be remembered: unhashable, or without weak references
        return _Model()


def _pulled_by_all(known: _Model, read: Callable[[], Update]) -> Tuple[Update, PulledVersion]:
    """Nothing is touched yet."""
    wanted, version, failure = Update("", 0), None, None
    try:
        wanted = read()
        version = _pull(wanted)
        known.check(version, wanted.is_partial)
    except Exception as error:
        failure = error
    Agreement(_groups(), wanted.agree_within).settle(failure, str(wanted))
    assert version is not None  # else there is a failure
    return wanted, version


def _load_in_all(model: Any, wanted: Update, version: Callable[[], PulledVersion]) -> None:
    failure = None
    try:
        _load(model, version(), wanted.is_partial)
    except Exception as error:
        failure = error
    Agreement(_groups(), wanted.agree_within).settle(failure, str(wanted), way_out="weights were touched")


def _gone_back(model: Any, known: _Model, wanted: Update, error: Exception) -> RefitError:
    """What to raise, after the last whole version was loaded again where there was one."""
    last = known.loaded
    words = f"version {wanted.number} was not loaded: {error}; "
    if last is None:
        return _failed(words + _TORN, error, wanted, is_torn=True)
    try:
        _load_in_all(model, last, lambda: _pull(last))
    except Exception as second:
        words += f"version {last.number}, which it had, could not be loaded again: {second}; "
        return _failed(words + _TORN, error, wanted, is_torn=True)
    known.torn.clear()
    return _failed(f"{words}the model has version {last.number} again, all of it", error, wanted, is_torn=False)


def _failed(words: str, error: Exception, wanted: Update, *, is_torn: bool) -> RefitError:
    failed = FailedPrecondition(words, tensor=getattr(error, "tensor", None), version=wanted.number)
    failed.torn = is_torn
    return failed


def _pull(wanted: Update) -> PulledVersion:
    """In time: of a version that is pushed slowly the service has word all the while."""
    calls = Calls()
    timer = threading.Timer(wanted.pull_within, calls.cancel)
    timer.daemon = True
    timer.start()
    try:
        return calls.run(partial(_pull_whole, wanted))
    except Cancelled:
        if not timer.finished.is_set():
            raise
        raise DeadlineExceeded(
            f"{wanted} has not come whole within {wanted.pull_within:g} s; see that it is committed, or raise "
            "pull_within",
            version=wanted.number,
        ) from None
    finally:
        timer.cancel()


def _pull_whole(wanted: Update) -> PulledVersion:
    try:
        with Subscriber(wanted.address, **wanted.connection) as subscriber:
            return subscriber.pull(wanted.number, **wanted.pull)
    except TypeError as error:
        raise InvalidArgument(f"descriptor of version {wanted.number}: {error}", version=wanted.number) from None


def _load(model: Any, version: PulledVersion, is_partial: bool) -> None:
    """
    Raises:
        FailedPrecondition: naming the tensor at which load_weights raised, or parameters that it left as they were.
    """
    taken: List[str] = []
    try:
        loaded = model.load_weights(_told(version, taken))
    except Exception as error:
        name = taken[-1] if taken else None
        raise FailedPrecondition(
            f"version {version.number}, tensor {name}: load_weights raised {type(error).__name__}: {error}",
            tensor=name,
            version=version.number,
        ) from error
    if not is_partial:
        _check_complete(model, loaded, version)


def _told(version: PulledVersion, taken: List[str]) -> Iterator[Tuple[str, Any]]:
    """The version's tensors; `taken` hears of each name."""
    for name, tensor in version:
        taken.append(name)
        yield name, tensor


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


def _groups() -> List[Any]:
    """SGLang's group of the tensor-parallel workers, on the CPU. Its pipeline stages get an update one after another,
    and cannot wait for each other."""
    import torch.distributed as dist

    state = sys.modules.get("sglang.srt.distributed.parallel_state")
    if state is None or not dist.is_available() or not dist.is_initialized():
        return []
    context = sys.modules.get("sglang.srt.runtime_context")  # newer versions'
    return [(state.get_tp_group() if context is None else context.get_parallel().tp_group).cpu_group]


def _forget_embeddings() -> None:
    """Images that the old vision tower has encoded: SGLang's flush_cache leaves them, and they are found by the image
    alone."""
    for name in ("sglang.srt.managers.mm_schedule", "sglang.srt.managers.mm_utils"):  # of newer versions, of older ones
        cache = getattr(sys.modules.get(name), "embedding_cache", None)
        if cache is not None:
            cache.clear()


def register() -> None:
    """Hooks answered() into SGLang, through its own registry. For processes with a scheduler; harmless in others."""
    if "sglang.srt.managers.scheduler" not in sys.modules:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    updater = "sglang.srt.model_executor.model_runner_components.weight_updater"
    try:
        has_updater = importlib.util.find_spec(updater) is not None
    except ModuleNotFoundError:
        has_updater = False
    owner = f"{updater}.WeightUpdater" if has_updater else "sglang.srt.model_executor.model_runner.ModelRunner"
    HookRegistry.register(f"{owner}.update_weights_from_tensor", answered, HookType.AROUND)


def answered(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """SGLang's scheduler ends, and the server with it, if a loader raises. This answers the request instead."""
    try:
        return original(*args, **kwargs)
    except Exception as error:
        if kwargs.get("load_format") != LOADER:
            raise
        return False, str(error) if isinstance(error, RefitError) else f"{type(error).__name__}: {error}"
